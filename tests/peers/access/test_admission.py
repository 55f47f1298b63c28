"""What a hostile client gets from a peer on loopback: with each limit, and without it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from helpers.loopback import (
    Peer,
    ask,
    dialed,
    eventually,
    opening,
    session_id,
    somebody,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from peers.access import admission as admissions
from peers.access.admission import Admission, Refused, summary
from peers.access.limits import Limits
from peers.compute.cache_budget import CacheFull
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.rates import Rate
from swarm.wire.messages import Close, Fault, FaultCode, Hop, Opened, Ping, Pong, Result

BOUNDLESS = Rate(1e9, 1e9)
ENDLESS = (1 << 30, 1 << 30)


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@asynccontextmanager
async def besieged(
    span: Span, tiny: Checkpoint, limits: Limits, **options: Any
) -> AsyncIterator[tuple[Peer, Link]]:
    """A peer, and an attacker's link to it.

    Whatever happened, somebody else is served in the end.
    """
    async with Peer(span, tiny.fingerprint, limits=limits, **options) as peer:
        serve = peer.server._serve

        async def as_somebody(link: Link) -> None:
            link.peer_id = next(names, "honest")
            await serve(link)

        names = iter(["attacker"])
        peer.server._serve = as_somebody
        async with dialed(peer.server) as link:
            assert await ask(link, Ping(nonce=0)) == Pong(nonce=0)
            yield peer, link


async def is_served(peer: Peer, tiny: Checkpoint, number: int = 99) -> bool:
    """Whether an honest client is."""
    async with dialed(peer.server) as link:
        try:
            answer = await ask(
                link, opening(tiny.fingerprint, 0, LAYERS, session=session_id(number))
            )
            if not isinstance(answer, Opened):
                return False
            return isinstance(
                await ask(link, tokens_frame(1, (3,), session=session_id(number))), Result
            )
        except LinkClosed:
            return False


@pytest.mark.threat("flooded-links")
@pytest.mark.parametrize("defended", [True, False])
async def test_one_client_takes_all_links(defended: bool, span: Span, tiny: Checkpoint) -> None:
    limits = Limits(links=4, links_each=(2, 3) if defended else ENDLESS)
    async with (
        besieged(span, tiny, limits) as (peer, _),
        dialed(peer.server),
        dialed(peer.server),
        dialed(peer.server),
    ):
        await eventually(
            lambda: (
                len(peer.handler._openings.links) + peer.handler.admission.refusals["links"] == 4
            )
        )
        assert len(peer.handler._openings.links) == (3 if defended else 4)
        async with dialed(peer.server) as another:
            with pytest.raises(LinkClosed):
                await ask(another, Ping(nonce=1))
    assert peer.handler.admission._links == 0
    assert not len(peer.handler.admission._holdings)


@pytest.mark.threat("flooded-openings")
@pytest.mark.parametrize("defended", [True, False])
async def test_sessions_are_opened_and_closed_without_end(
    defended: bool, span: Span, tiny: Checkpoint
) -> None:
    limits = Limits(openings=Rate(1e-6, 5) if defended else BOUNDLESS)
    opened = 0
    async with besieged(span, tiny, limits) as (peer, link):
        for _ in range(8):
            if opened < 5 or not defended:
                opened += isinstance(await ask(link, opening(tiny.fingerprint, 0, LAYERS)), Opened)
                await link.send(Close(session=session_id()))
        assert opened == (5 if defended else 8)
        if defended:
            fault = await ask(link, opening(tiny.fingerprint, 0, LAYERS))
            assert isinstance(fault, Fault)
            assert fault.code == FaultCode.BUSY
            assert fault.retry_ms
            assert peer.handler.admission.refusals == {"openings": 1}
        assert await is_served(peer, tiny)


@pytest.mark.threat("flooded-openings")
@pytest.mark.parametrize("defended", [True, False])
async def test_whoever_goes_on_flooding_is_banned(
    defended: bool, span: Span, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(admissions, "FLOOD", 0.5 if defended else 0.0)
    limits = Limits(openings=Rate(1e-6, 1), violations=Rate(1e-6, 1))
    async with besieged(span, tiny, limits) as (peer, link):
        try:
            for _ in range(9):
                await ask(link, opening(tiny.fingerprint, 0, LAYERS))
        except LinkClosed:
            assert defended
        else:
            assert not defended
        assert bool(peer.handler.admission._bans.left_s("attacker")) == defended
        assert await is_served(peer, tiny)


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
async def test_nonsense_again_and_again(defended: bool, span: Span, tiny: Checkpoint) -> None:
    limits = Limits(
        violations=Rate(1e-6, 2) if defended else BOUNDLESS, violations_of_address=BOUNDLESS
    )
    async with besieged(span, tiny, limits) as (peer, _):
        serve = peer.handler.serve

        async def as_attacker(link: Link) -> None:
            link.peer_id = "attacker"
            await serve(link)

        honest, peer.server._serve = peer.server._serve, as_attacker
        answered = 0
        for _ in range(5):
            async with dialed(peer.server) as link:
                try:
                    await link._write(b"\xc1")
                    answered += isinstance(await soon(link.receive()), Fault)
                except LinkClosed:
                    continue
        assert answered == (3 if defended else 5)
        assert peer.handler.admission.refusals["banned"] == (2 if defended else 0)
        peer.server._serve = honest
        assert await is_served(peer, tiny)


@pytest.mark.threat("flooded-frames")
@pytest.mark.parametrize("defended", [True, False])
async def test_messages_faster_than_anybody_needs(
    defended: bool, span: Span, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "LONGEST_PAUSE_S", 1e6)
    limits = Limits(messages=Rate(1e-6, 9) if defended else BOUNDLESS)
    async with besieged(span, tiny, limits) as (peer, link):
        for nonce in range(20):
            await link.send(Ping(nonce=nonce))
        heard = [await soon(link.receive()) for _ in range(9 if defended else 20)]
        assert heard == [Pong(nonce=nonce) for nonce in range(len(heard))]
        assert peer.handler.admission.refusals == ({"paced": 1} if defended else {})
        assert await is_served(peer, tiny)


@pytest.mark.threat("flooded-frames")
async def test_a_peer_that_sends_for_many_is_counted_apart(span: Span, tiny: Checkpoint) -> None:
    """Its clients' frames are no flood, and what it says for itself is."""
    limits = Limits(messages=Rate(1e-6, 8))
    async with besieged(span, tiny, limits) as (peer, link), dialed(peer.server) as forwarding:
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, LAYERS)), Opened)
        link_of_peer = peer.server.links[-1]
        handler = peer.handler
        assert handler._forwards(link_of_peer, tokens_frame(1, (3,)))
        assert not handler._forwards(peer.server.links[0], tokens_frame(1, (3,)))
        assert not handler._forwards(link_of_peer, tokens_frame(1, (3,), session=session_id(5)))
        for number in range(20):
            await handler.admission.pace(link_of_peer, 100, forwarded=True)
            assert not handler.admission.refusals, number
        assert await ask(forwarding, Ping(nonce=1)) == Pong(nonce=1)


@pytest.mark.threat("far-dialling")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_client_has_strangers_dialled(defended: bool, span: Span, tiny: Checkpoint) -> None:
    limits = Limits(failed_dials=Rate(1e-6, 3) if defended else BOUNDLESS)
    async with besieged(span, tiny, limits) as (peer, link):
        codes = Counter()
        for port in range(1, 7):
            nobody = Hop(
                peer_id=Identity.generate().peer_id,
                address=f"127.0.0.1:{port}",
                certificate="0" * 64,
            )
            fault = await ask(link, opening(tiny.fingerprint, 0, LAYERS, next=nobody))
            assert isinstance(fault, Fault)
            codes[fault.code] += 1
        assert codes[FaultCode.NEXT_UNREACHABLE] == (3 if defended else 6)
        assert codes[FaultCode.BUSY] == (3 if defended else 0)
        assert peer.idle
        async with Peer(span, tiny.fingerprint) as following, dialed(peer.server) as honest:
            answer = await ask(
                honest, opening(tiny.fingerprint, 0, LAYERS, next=following.server.hop)
            )
            assert isinstance(answer, Opened)


@pytest.mark.threat("hoarded-cache")
@pytest.mark.parametrize("defended", [True, False])
async def test_one_client_reserves_everything(defended: bool, span: Span, tiny: Checkpoint) -> None:
    limits = Limits(cache_share=(0.5, 1.0) if defended else (1.0, 1.0), lent_silent_s=0.0)
    async with besieged(span, tiny, limits, cache_tokens=256) as (peer, link):
        for number in range(4):
            answer = await ask(
                link, opening(tiny.fingerprint, 0, LAYERS, session=session_id(number))
            )
            assert isinstance(answer, Opened), "whoever is alone may have it all"
        assert await is_served(peer, tiny) == defended
        if defended:
            fault = await soon(link.receive())
            assert isinstance(fault, Fault)
            assert (fault.code, fault.session) == (FaultCode.BUSY, session_id(0)), (
                "the longest silent gives way"
            )
        await eventually(lambda: len(peer.handler.sessions) == (2 if defended else 4))


@dataclass(frozen=True)
class From:
    """As much of a link as admission knows."""

    peer_id: str
    address: str = "192.0.2.1"
    relayed: bool = False


def link_of(client: str, **changes: Any) -> Any:
    return From(client, **changes)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(admission: Admission, link: Any, tokens: int, total: int) -> str:
    try:
        admission.check(link, tokens, total)
    except Refused as refusal:
        return refusal.kind
    admission.reserve(link, tokens)
    return ""


def test_a_share_counts_only_while_others_want_room() -> None:
    clock = Clock()
    admission = Admission(Limits(), clock)
    alice, bob = link_of("alice"), link_of("bob", address="192.0.2.2")
    assert refused(admission, alice, 600, 1000) == ""
    admission.no_room(bob, CacheFull(500, 400, 1000, 100.0))
    assert admission.over_share(alice, 1000)
    assert refused(admission, alice, 10, 1000) == "cache"
    assert refused(admission, bob, 400, 1000) == ""
    assert not admission.over_share(alice, 1000), "bob has what he wanted"
    assert refused(admission, alice, 0, 1000) == ""
    admission.no_room(bob, CacheFull(500, 400, 1000, None))
    assert not admission.over_share(alice, 1000), "what never fits is wanted of nobody"
    admission.no_room(bob, CacheFull(500, 400, 1000, 100.0))
    clock.now += 31
    assert not admission.over_share(alice, 1000), "bob asks no more"


def test_many_identities_of_one_address_share_what_it_may_have() -> None:
    admission = Admission(Limits(sessions_each=(2, 3)))
    assert [refused(admission, link_of(name), 1, 100) for name in "abcd"] == [
        "",
        "",
        "",
        "sessions",
    ]
    assert refused(admission, link_of("a", address="192.0.2.9"), 1, 100) == ""
    assert refused(admission, link_of("a", address="192.0.2.9"), 1, 100) == "sessions"
    assert refused(admission, link_of("e", relayed=True), 1, 100) == "", (
        "a relay's address says nothing"
    )
    admission.release(link_of("a"), 1)
    assert refused(admission, link_of("d"), 1, 100) == ""


def test_whoever_has_proved_nothing_counts_by_its_address() -> None:
    admission = Admission(Limits(links_each=(1, 2)))
    assert [admission.enter(link_of("")) for _ in range(3)] == [True, True, False]
    admission.leave(link_of(""))
    assert admission.enter(link_of(""))
    assert admission.refusals == {"links": 1}


async def openings(admission: Admission, *clients: str) -> list[bool]:
    """Which of these clients of one address may open a session, one after the other."""
    taken = []
    for client in clients:
        try:
            await admission.opening(link_of(client))
            taken.append(True)
        except Refused:
            taken.append(False)
    return taken


async def test_a_client_pays_nothing_for_what_its_address_has_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admissions, "LONGEST_PAUSE_S", 0.0)
    clock = Clock()
    limits = Limits(
        openings=Rate(1e-6, 2), openings_of_address=Rate(1.0, 2), violations=Rate(1e-6, 1)
    )
    admission = Admission(limits, clock)
    assert await openings(admission, "flooder", "flooder") == [True, True]
    assert await openings(admission, *["client"] * 100) == [False] * 100
    assert not admission.banned(link_of("client", address="192.0.2.9")), (
        "it is not the one that floods"
    )
    clock.now += 2.0
    assert await openings(admission, "client", "client", "client") == [True, True, False]


async def test_an_address_pays_nothing_for_what_one_client_has_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admissions, "LONGEST_PAUSE_S", 0.0)
    admission = Admission(
        Limits(openings=Rate(1e-6, 1), openings_of_address=Rate(1e-6, 3)), Clock()
    )
    assert await openings(admission, *["flooder"] * 10) == [True] + [False] * 9
    assert await openings(admission, "a", "b", "c") == [True, True, False]
    assert not admission.banned(link_of("another")), "its address did not flood"


def test_bans_end_and_grow() -> None:
    clock, attacker = Clock(), link_of("attacker")
    admission = Admission(replace(Limits(), violations=Rate(1e-6, 1), ban_s=10.0), clock)
    for ban_s in (10.0, 20.0):
        for _ in range(2):
            admission.violated(attacker)
        assert admission.banned(attacker)
        assert not admission.banned(link_of("another"))
        clock.now += ban_s
        assert not admission.banned(attacker)


def test_a_summary_tells_what_is_new() -> None:
    before = Counter(links=2, openings=1)
    assert summary(before, Counter(links=5, openings=1, cache=7)) == "7 cache, 3 links"
    assert summary(before, before) == ""


async def test_pauses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    admission = Admission(Limits(nbytes=Rate(1.0, 1)))
    await admission.pace(link_of("a"), 1000, forwarded=False)
    await admission.pace(link_of("b"), 1000, forwarded=True)
    assert slept == [admissions.LONGEST_PAUSE_S]


async def _openings(admission: Admission, link: Any) -> int:
    """How many sessions may be opened at once."""
    for count in range(1000):
        try:
            await admission.opening(link)
        except Refused:
            return count
    return 1000


@pytest.mark.parametrize(
    ("claimed", "bound", "granted"), [(1, 4, 8), (3, 4, 24), (4, 4, 32), (10_000, 4, 32), (4, 1, 8)]
)
async def test_a_gateway_opens_for_as_many_as_it_asks_for_within_a_bound(
    claimed: int, bound: int, granted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peers.access.admission.LONGEST_PAUSE_S", 0.0)
    limits = Limits(
        openings=Rate(4.0, 8), openings_of_address=Rate(16.0, 32), gateway_clients=bound
    )
    admission = Admission(limits, Clock())
    gateway = link_of("gateway")
    assert admission.enter(gateway)
    admission.speaks_for(gateway, claimed)
    assert await _openings(admission, gateway) == granted
    admission.leave(gateway)
    assert not admission._clients
    assert await _openings(admission, link_of("alice", address="192.0.2.2")) == 8


async def test_an_address_may_do_no_less_than_the_gateway_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peers.access.admission.LONGEST_PAUSE_S", 0.0)
    limits = Limits(openings=Rate(4.0, 8), openings_of_address=Rate(16.0, 32), gateway_clients=16)
    admission = Admission(limits, Clock())
    gateway = link_of("gateway")
    assert admission.enter(gateway)
    admission.speaks_for(gateway, 16)
    assert await _openings(admission, gateway) == 16 * 8
    admission.leave(gateway)


def test_a_gateway_holds_more_sessions_and_no_more_of_the_cache_while_others_want_it() -> None:
    admission = Admission(Limits(sessions_each=(2, 8)), Clock())
    gateway = link_of("gateway")
    assert admission.enter(gateway)
    admission.speaks_for(gateway, 3)
    assert [refused(admission, gateway, 60, 1000) for _ in range(7)] == [""] * 6 + ["sessions"]
    admission.no_room(link_of("bob", address="192.0.2.2"), CacheFull(500, 400, 1000, 100.0))
    admission.release(gateway, 60)
    assert refused(admission, gateway, 300, 1000) == "cache"


async def test_what_a_gateway_says_reaches_the_peers_books(span: Span, tiny: Checkpoint) -> None:
    """By real links: a gateway of three opens three times as many as a client, at a peer that
    believes it."""
    limits = Limits(openings=Rate(1e-6, 2), openings_of_address=Rate(1e-6, 100))
    for clients, granted in ((1, 2), (3, 6)):
        async with Peer(span, tiny.fingerprint, limits=limits) as peer:
            dialer = Dialer(somebody(), speaks_for=clients)
            async with await dialer.connect(*peer.server.where) as link:
                opened = 0
                for number in range(granted + 1):
                    asked = opening(
                        tiny.fingerprint, 0, LAYERS, session=session_id(number), max_tokens=8
                    )
                    opened += isinstance(await ask(link, asked), Opened)
                assert opened == granted
            await dialer.close()
            await eventually(lambda peer=peer: peer.idle)
