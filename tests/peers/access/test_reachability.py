"""Finding out how others reach us, with a real bootstrap node, port and relay."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from helpers.loopback import Server, listen, new_member, soon
from peers.access import reachability as module
from peers.access.entering import insist
from peers.access.reachability import (
    AnnouncedAddresses,
    Reachability,
    Unreachable,
    asked,
    judge,
    own_address,
)
from peers.events import PeerEvent
from swarm.config import Network
from swarm.errors import NoBootstrap
from swarm.identity import Identity
from swarm.network.dht.directory import Directory
from swarm.network.links.address import is_relayed
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import HandshakeLimiter
from swarm.network.nat.dialback import DialResponse

OURS = "192.168.1.7:31330"
OUTSIDE = "9.9.9.9:31330"  # of the open internet, as no address for documentation is


@pytest.fixture
def _as_if_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is asked about like any other address."""
    monkeypatch.setattr(module, "_is_loopback", lambda _: False)


def said(tried: str | None, worked: bool = False, seen: str = "203.0.113.5") -> DialResponse:
    return DialResponse(seen=(seen,), tried=tried, worked=worked)


def test_what_nobody_tried_is_announced_unverified() -> None:
    assert judge([], OURS) == Reachability((OURS,), verified=False, whole=True)
    assert judge([said(None)], OURS) == Reachability(
        (OURS,), verified=False, whole=True, seen=("203.0.113.5",)
    )


def test_what_worked_is_announced_the_open_internet_first() -> None:
    verdict = judge(
        [said(OURS, True, "192.168.1.7"), said(OUTSIDE, True), said(OUTSIDE, True), said(None)],
        OURS,
    )
    assert verdict == Reachability(
        (OUTSIDE, OURS), verified=True, whole=True, seen=("192.168.1.7", "203.0.113.5")
    )


def test_what_works_for_some_only_is_not_enough() -> None:
    assert judge([said(OURS, True), said(OUTSIDE)], OURS) == Reachability(
        (OURS,), True, False, ("203.0.113.5",)
    )
    assert judge([said(OUTSIDE)], OURS) == Reachability((), True, False, ("203.0.113.5",))


async def test_nobody_is_asked_about_loopback() -> None:
    talk: list[PeerEvent] = []
    reach = AnnouncedAddresses(
        Network("test"), "127.0.0.1:1", HandshakeLimiter(new_member()), listen
    )
    async with asked(reach, talk.append):
        assert reach.addresses == ("127.0.0.1:1",)
        assert reach.is_direct
    assert talk == []


@pytest.mark.usefixtures("_as_if_outside")
async def test_who_is_reached_directly_holds_no_place(bootstrap: Directory) -> None:
    talk: list[PeerEvent] = []
    async with Server(listen) as server:
        reach = AnnouncedAddresses(
            Network("test", bootstrap.addresses), server.address, server.limiter, listen
        )
        async with asked(reach, talk.append):
            assert reach.addresses == (server.address,)
            assert reach._relay is None
            assert talk == []


@pytest.mark.usefixtures("_as_if_outside")
async def test_who_cannot_be_asked_about_is_announced_and_that_is_said() -> None:
    talk: list[PeerEvent] = []
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as mute:
        reach = AnnouncedAddresses(
            Network("test", mute.addresses), "127.0.0.1:1", HandshakeLimiter(new_member()), listen
        )
        async with asked(reach, talk.append):
            assert reach.addresses == ("127.0.0.1:1",)
        assert "unverified" in talk[0].sentence


@pytest.mark.usefixtures("_as_if_outside")
async def test_who_cannot_be_dialled_comes_in_through_a_relay_until_that_changes(
    bootstrap: Directory,
) -> None:
    network, talk = Network("test", bootstrap.addresses), list[PeerEvent]()
    async with Server(listen) as server, entered(network) as directory:
        reach = AnnouncedAddresses(network, server.address, server.limiter, listen)
        await server.stop()
        async with asked(reach, talk.append):
            assert "127.0.0.1" in talk[0].sentence
            assert not reach.is_direct
            await soon(reach.enter(directory))
            (place,) = reach.addresses
            assert is_relayed(place)
            dialer = Dialer(new_member(), streams=directory.streams)
            link = await soon(dialer.connect(*(place, *server.where[1:])))
            assert link.relayed
            await link.close()
            await dialer.close()

            reach._question = reach._question.model_copy(
                update={"address": await _listening_again(server)}
            )
            await soon(reach.ask_again(directory))
            assert reach.addresses == (server.address, place)
            await server.stop()
            await soon(reach.ask_again(directory))
            assert reach.addresses == (server.address, place), "once may be chance"
            await soon(reach.ask_again(directory))
            assert reach.addresses == (place,)
        assert reach._relay is None


@contextlib.asynccontextmanager
async def entered(network: Network) -> AsyncIterator[Directory]:
    async with await Directory.join(Identity.generate(), network, client_mode=True) as directory:
        yield directory


def quiet(_: str) -> None:
    pass


async def _listening_again(server: Server) -> str:
    await server.__aenter__()
    return server.address


@pytest.mark.usefixtures("_as_if_outside")
async def test_a_direct_address_that_is_lost_is_replaced_by_a_relay(bootstrap: Directory) -> None:
    network = Network("test", bootstrap.addresses)
    async with Server(listen) as server, entered(network) as directory:
        reach = AnnouncedAddresses(network, server.address, server.limiter, listen)
        async with asked(reach, quiet):
            await server.stop()
            for _ in range(module.MAX_FAILED):
                await soon(reach.ask_again(directory))
            (place,) = reach.addresses
            assert is_relayed(place)


@pytest.mark.usefixtures("_as_if_outside")
async def test_no_way_in_at_all_is_said(
    bootstrap: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACE_TIMEOUT_S", 0.0)
    network = Network("test", bootstrap.addresses)
    async with (
        entered(network) as directory,
        asked(
            AnnouncedAddresses(network, "127.0.0.1:1", HandshakeLimiter(new_member()), listen),
            quiet,
        ) as reach,
    ):
        await reach._relay.stop()
        with pytest.raises(Unreachable, match="forward port 1"):
            await soon(reach.enter(directory))
    assert reach._relay is None


@pytest.mark.usefixtures("_as_if_outside")
async def test_no_bootstrap_node_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "insist", partial(insist, patience_s=0.0))
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    with pytest.raises(NoBootstrap):
        async with asked(
            AnnouncedAddresses(
                Network("test", (nobody,)), "127.0.0.1:1", HandshakeLimiter(new_member()), listen
            ),
            quiet,
        ):
            pass


def test_an_address_that_others_can_dial_is_announced() -> None:
    assert own_address("127.0.0.1", 1) == "127.0.0.1:1"
    assert not own_address("0.0.0.0", 1).startswith("0.0.0.0")
