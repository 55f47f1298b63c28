"""Being dialled back by a real bootstrap node, and what it refuses to dial."""

import asyncio
from collections.abc import AsyncIterator

import msgpack
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import PeerID

from helpers.loopback import Server, listen, soon
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory
from swarm.network.links.link import LinkClosed
from swarm.network.links.websocket import WebSockets
from swarm.network.nat import dialback
from swarm.network.nat.dialback import DialRequest, DialResponse, ask, choose, seen_at
from swarm.util.rates import TokenBuckets

PEER = Identity.generate().peer_id


@pytest.fixture
async def asker(bootstrap: Directory) -> AsyncIterator[Directory]:
    network = Network("test", bootstrap.addresses)
    async with await Directory.join(Identity.generate(), network, client_mode=True) as directory:
        yield directory


async def test_who_listens_is_reached_and_told_where_it_is_seen(
    bootstrap: Directory, asker: Directory
) -> None:
    async with Server(listen) as server:
        question = DialRequest(address=server.address, certificate=server.certificate)
        (answer,) = await soon(ask(asker.daemon, bootstrap.addresses, question))
        assert answer == DialResponse(seen=("127.0.0.1",), tried=server.address, worked=True)


async def test_nobody_or_somebody_else_at_the_address_is_not_being_reached(
    bootstrap: Directory, asker: Directory
) -> None:
    async with Server(listen) as server:
        for address, certificate in (
            (server.address, "0" * 64),
            ("127.0.0.1:1", server.certificate),
        ):
            question = DialRequest(address=address, certificate=certificate)
            (answer,) = await soon(ask(asker.daemon, bootstrap.addresses, question))
            assert (answer.tried, answer.worked) == (address, False)


async def test_another_computer_is_not_dialled(bootstrap: Directory, asker: Directory) -> None:
    question = DialRequest(address="192.0.2.1:80", certificate="0" * 64, exact=True)
    (answer,) = await soon(ask(asker.daemon, bootstrap.addresses, question))
    assert answer == DialResponse(seen=("127.0.0.1",))


async def test_one_address_is_dialled_a_few_times_only(
    bootstrap: Directory, asker: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = DialRequest(address="127.0.0.1:1", certificate="0" * 64)
    answers = [
        await soon(ask(asker.daemon, bootstrap.addresses, question))
        for _ in range(dialback.MAX_PER_MINUTE + 1)
    ]
    assert [answer.tried is None for (answer,) in answers] == [False] * dialback.MAX_PER_MINUTE + [
        True
    ]


async def test_garbage_is_refused(bootstrap: Directory, asker: Directory) -> None:
    node = PeerID.from_base58(bootstrap.addresses[0].rpartition("/")[2])
    for garbage in (
        b"",
        b"\xc1",
        b"x" * 2000,
        msgpack.packb({"address": "/etc", "certificate": "0" * 64}),
        msgpack.packb([]),
    ):
        with pytest.raises(Exception, match="ValueError"):
            await soon(
                asker.daemon.call_protobuf_handler(
                    node, dialback.PROTOCOL, BytesValue(value=garbage), BytesValue
                )
            )


async def test_a_node_that_is_gone_or_knows_no_such_question_is_left_out(
    bootstrap: Directory, asker: Directory
) -> None:
    question = DialRequest(address="127.0.0.1:1", certificate="0" * 64)
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as other:
        nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"
        answers = await soon(
            ask(asker.daemon, (nobody, *other.addresses, *bootstrap.addresses), question)
        )
        assert len(answers) == 1


async def test_a_node_that_does_not_answer_keeps_nobody_waiting(
    asker: Directory, bootstrap: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialback, "ASK_TIMEOUT_S", 0.2)
    over = asyncio.Event()

    async def hang(*_: object) -> BytesValue:
        await over.wait()
        return BytesValue()

    network = Network("test")
    async with await Directory.join(Identity.generate(), network, bootstrap_node=True) as mute:
        await mute.daemon.add_protobuf_handler(dialback.PROTOCOL, hang, BytesValue)
        question = DialRequest(address="127.0.0.1:1", certificate="0" * 64)
        inside = Network("test", mute.addresses)
        async with await Directory.join(Identity.generate(), inside, client_mode=True) as other:
            assert await soon(ask(other.daemon, mute.addresses, question)) == []
        over.set()


def test_only_the_asker_is_dialled() -> None:
    seen = ["203.0.113.5"]
    ours = {"127.0.0.1", "192.168.1.7"}.__contains__
    assert choose(["203.0.113.5"], seen, True, ours) == "203.0.113.5"
    assert choose(["198.51.100.1"], seen, True, ours) is None, "that is somebody else"
    assert choose(["192.168.1.7"], seen, False, ours) == "203.0.113.5", (
        "where the router is, maybe with its port forwarded"
    )
    assert choose(["192.168.1.7"], ["127.0.0.1"], True, ours) == "192.168.1.7", "it runs beside us"
    assert choose(["192.168.1.8"], ["127.0.0.1"], True, ours) is None
    assert choose(["192.168.1.7"], [], False, ours) is None, "over a relay it is seen nowhere"
    assert choose([], seen, False, ours) == "203.0.113.5", "a name that nobody knows"
    assert choose([], seen, True, ours) is None


def test_a_relay_is_not_the_place_where_somebody_is_seen() -> None:
    relayed = f"/ip4/198.51.100.1/tcp/1/p2p/{PEER}/p2p-circuit"
    direct = [
        "/ip4/203.0.113.5/tcp/1",
        "/ip4/203.0.113.5/tcp/2",
        "/ip6/2001:db8::1/tcp/1",
        "/unix/x",
        "",
        "/ip4/x",
    ]
    assert seen_at([relayed, *direct]) == ["203.0.113.5", "2001:db8::1"]


@pytest.mark.threat("far-dial-back")
@pytest.mark.parametrize("defended", [True, False])
async def test_nobody_has_a_bootstrap_node_dial_somebody_else(
    bootstrap: Directory, asker: Directory, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(dialback, "choose", lambda named, *_: named[0])
    dialled: list[str] = []

    async def dial(_: object, address: str, __: str) -> None:
        dialled.append(address)
        raise LinkClosed("not for this test")

    monkeypatch.setattr(WebSockets, "open", dial)
    for exact in (True, False):
        question = DialRequest(address="192.0.2.1:80", certificate="0" * 64, exact=exact)
        await soon(ask(asker.daemon, bootstrap.addresses, question))
    assert ("192.0.2.1:80" in dialled) != defended


@pytest.mark.threat("far-dial-back")
@pytest.mark.parametrize("defended", [True, False])
async def test_names_are_looked_up_a_few_times_only(
    bootstrap: Directory, asker: Directory, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs a domain would have us send as many packets to its name servers."""
    if not defended:
        monkeypatch.setattr(TokenBuckets, "take", lambda *_: True)
    names: list[object] = []

    async def look_up(host: object, *_: object, **__: object) -> list[object]:
        names.append(host)
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    times = 2 * dialback.MAX_PER_MINUTE
    for number in range(times):
        question = DialRequest(address=f"host{number}.example:80", certificate="0" * 64, exact=True)
        await soon(ask(asker.daemon, bootstrap.addresses, question))
    assert len(names) == (dialback.MAX_PER_MINUTE if defended else times)
