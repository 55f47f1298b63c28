"""What a hostile client gets from a peer on loopback: with each limit, and without it."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from helpers.loopback import (
    Peer,
    ask,
    dialed,
    eventually,
    new_member,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from peers.access.limits import AccessLimits
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.rates import Rate
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Close,
    Fault,
    Hop,
    Opened,
    Ping,
    Pong,
    Result,
)

BOUNDLESS = Rate(1e9, 1e9)


ENDLESS = (1 << 30, 1 << 30)


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@asynccontextmanager
async def besieged(
    span: Span, tiny: Checkpoint, limits: AccessLimits, **options: Any
) -> AsyncIterator[tuple[Peer, Link]]:
    """A peer, and an attacker's link to it.

    Whatever happened, another client is served in the end.
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
    limits = AccessLimits(links=4, links_each=(2, 3) if defended else ENDLESS)
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
    limits = AccessLimits(openings=Rate(1e-6, 5) if defended else BOUNDLESS)
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
    defended: bool, span: Span, tiny: Checkpoint
) -> None:
    limits = AccessLimits(
        openings=Rate(1e-6, 1),
        violations=Rate(1e-6, 1),
        longest_pause_s=0.0,
        flood_weight=0.5 if defended else 0.0,
    )
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
    limits = AccessLimits(
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
    defended: bool, span: Span, tiny: Checkpoint
) -> None:
    limits = AccessLimits(messages=Rate(1e-6, 9) if defended else BOUNDLESS, longest_pause_s=1e6)
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
    limits = AccessLimits(messages=Rate(1e-6, 8))
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
    limits = AccessLimits(failed_dials=Rate(1e-6, 3) if defended else BOUNDLESS)
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
    limits = AccessLimits(cache_share=(0.5, 1.0) if defended else (1.0, 1.0), lent_silent_s=0.0)
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


async def test_what_a_gateway_says_reaches_the_peers_books(span: Span, tiny: Checkpoint) -> None:
    """By real links: a gateway of three opens three times as many as a client, at a peer that
    believes it."""
    limits = AccessLimits(openings=Rate(1e-6, 2), openings_of_address=Rate(1e-6, 100))
    for clients, granted in ((1, 2), (3, 6)):
        async with Peer(span, tiny.fingerprint, limits=limits) as peer:
            dialer = Dialer(new_member(), speaks_for=clients)
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
