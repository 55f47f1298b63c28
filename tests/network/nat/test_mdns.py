"""Finding a swarm by multicast DNS, over loopback."""

import asyncio
import sys

import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from swarm.config import Network
from swarm.identity import Identity
from swarm.network.nat import mdns
from swarm.network.nat.mdns import FIND_S, NoLan, announced, find

LOOPBACK = ("127.0.0.1",)


def node(host: str, peer_id: str | None = None) -> str:
    return f"/ip4/{host}/tcp/31337/p2p/{peer_id or Identity.generate().peer_id}"


async def test_a_node_of_the_same_network_is_found_while_it_is_there() -> None:
    ours, theirs = node("192.168.1.7"), node("192.168.1.8")
    local = node("127.0.0.1", ours.rpartition("/")[2])
    async with announced("test", [ours, local], LOOPBACK), announced("other", [theirs], LOOPBACK):
        both = await asyncio.gather(*(find(name, FIND_S, LOOPBACK) for name in ("test", "other")))
        assert both == [(ours,), (theirs,)]
    assert await find("test", 0.5, LOOPBACK) == ()


async def test_a_node_on_loopback_alone_is_told() -> None:
    local = node("127.0.0.1")
    async with announced("test", [local], LOOPBACK):
        assert await find("test", FIND_S, LOOPBACK) == (local,)


async def test_addresses_that_are_too_long_for_a_record_are_not_told() -> None:
    short, long = (
        node("192.168.1.7"),
        f"/dns4/{'a.' * 120}local/tcp/1/p2p/{Identity.generate().peer_id}",
    )
    async with announced("test", [long, short], LOOPBACK):
        assert await find("test", FIND_S, LOOPBACK) == (short,)
    with pytest.raises(NoLan, match="240 bytes"):
        async with announced("test", [long], LOOPBACK):
            pass


def test_addresses_of_strangers_that_are_too_long_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"network": "test", "a0": node("192.168.1.7"), "a1": node("192.168.1.200")}
    monkeypatch.setattr(mdns, "MAX_ADDRESS_BYTES", len(told["a0"]))
    assert mdns._addresses(told, "test") == [told["a0"]]


async def test_what_strangers_announce_is_checked() -> None:
    good = node("192.168.1.7")
    info = AsyncServiceInfo(
        mdns.SERVICE,
        f"stranger.{mdns.SERVICE}",
        port=1,
        properties={
            "network": "test",
            "a0": "/ip4/nowhere",
            "a1": b"\xff\xfe",
            "a2": good,
            "a9": node("192.168.1.9"),
        },
        server="stranger.local.",
        parsed_addresses=["127.0.0.1"],
    )
    zeroconf = AsyncZeroconf(interfaces=list(LOOPBACK))
    await zeroconf.async_register_service(info)
    try:
        assert await find("test", FIND_S, LOOPBACK) == (good,)
    finally:
        await zeroconf.async_unregister_service(info)
        await zeroconf.async_close()


def test_what_is_found_is_added_to_what_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    named, found = node("203.0.113.5"), node("192.168.1.7")

    async def find_both(network: str) -> tuple[str, ...]:
        return (named, found)

    monkeypatch.setattr(mdns, "find", find_both)
    members = frozenset({Identity.generate().peer_id})
    assert mdns.search(Network("test", (named,), bytes(32), members)) == Network(
        "test", (named, found), bytes(32), members
    )


async def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(NoLan, match="pip install"):
        await find("test")
    with pytest.raises(NoLan, match="pip install"):
        async with announced("test", [node("127.0.0.1")]):
            pass
