"""Sessions that would take for ever, and clients that read nothing; over real links."""

import asyncio
import contextlib
import socket

import pytest

from helpers.lone_peer import (
    MIDDLE,
    lone_peer,
)
from helpers.loopback import (
    Peer,
    WatchedSpan,
    ask,
    dialed,
    eventually,
    opening,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links import link as links
from swarm.network.links.link import LinkClosed
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Fault,
    Ping,
    Pong,
    Result,
)


@pytest.mark.threat("endless-session")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_session_never_ends(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    """Its client says something now and then."""
    now_s = 0.0
    lifetime_s = 10.0 if defended else 1e9
    async with lone_peer(spans[0], tiny, clock=lambda: now_s, lifetime_s=lifetime_s) as (
        peer,
        link,
    ):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE))
        assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)
        now_s = 11.0
        answer = await ask(link, tokens_frame(2, (3,)))
        assert isinstance(answer, Fault) == defended
        if isinstance(answer, Fault):
            assert answer.code == FaultCode.BUSY
            assert peer.idle


@pytest.mark.threat("endless-session")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_silent_session_is_kept_for_ever(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    idle_timeout_s = 0.05 if defended else 1e9
    async with lone_peer(spans[0], tiny, idle_timeout_s=idle_timeout_s) as (peer, link):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE))
        if defended:
            fault = await soon(link.receive())
            assert isinstance(fault, Fault)
            assert fault.code == FaultCode.NO_SESSION
            assert peer.idle
        else:
            assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)


@pytest.mark.threat("slow-reader")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_client_that_never_reads_is_cut_off(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results pile up in the kernel, and then its session computes no more."""
    monkeypatch.setattr(links, "SEND_TIMEOUT_S", 0.2 if defended else 1e6)
    seen = WatchedSpan(spans[2])
    async with Peer(seen, tiny.fingerprint, 1 << 16, 1 << 16) as peer:  # type: ignore[arg-type]
        async with dialed(peer.server) as link, dialed(peer.server) as neighbour:
            await ask(link, opening(tiny.fingerprint, 0, LAYERS, max_tokens=1 << 15))
            link._transport.pause_reading()  # type: ignore[attr-defined]
            ours = next(
                each
                for each in peer.server.links
                if each in {s.downstream.opener for s in peer.handler.sessions.values()}
            )
            for end_of_it, size in ((ours, socket.SO_SNDBUF), (link, socket.SO_RCVBUF)):
                end_of_it._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, size, 1 << 14
                )
            for number in range(60):
                if ours.closed:
                    break
                first = 1 + 250 * number
                frame = tokens_frame(first, (3,) * 250, parents=(first, *(1,) * 249), epoch=number)
                with contextlib.suppress(LinkClosed):
                    await link.send(frame)
                await asyncio.sleep(0.02)
            if defended:
                await eventually(lambda: ours.closed)
            assert ours.closed == defended
            assert len(seen.batches) < 60, "nothing is computed for whom nothing reaches"
            assert await ask(neighbour, Ping(nonce=1)) == Pong(nonce=1)
            link._transport.abort()
        await eventually(lambda: peer.idle)
