"""What must not reach the computation; over real links."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import torch

from helpers.lone_peer import (
    HIDDEN,
    MIDDLE,
    lone_peer,
)
from helpers.loopback import (
    Peer,
    WatchedSpan,
    ask,
    dialed,
    eventually,
    hidden_frame,
    new_member,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS, VOCAB
from peers.sessions import checks
from peers.sessions import session as sessions
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.link import Link
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    MAX_HOPS,
    Fault,
    Frame,
    Opened,
    Ping,
    Pong,
    Result,
)

BAD_FRAMES: dict[str, tuple[Frame, FaultCode]] = {
    "gap": (tokens_frame(2, (3,)), FaultCode.OUT_OF_ORDER),
    "too many tokens": (tokens_frame(1, (3,) * 65), FaultCode.BAD_MESSAGE),
    "no such token": (tokens_frame(1, (VOCAB,)), FaultCode.BAD_MESSAGE),
    "hidden states for layer 0": (hidden_frame(1, torch.zeros(1, HIDDEN)), FaultCode.BAD_MESSAGE),
    "too many hops": (tokens_frame(1, (3,), compute_ms=(1.0,) * MAX_HOPS), FaultCode.BAD_MESSAGE),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_frame_that_breaks_the_rules_ends_its_session_only(
    spans: tuple[Span, ...], tiny: Checkpoint, name: str
) -> None:
    frame, code = BAD_FRAMES[name]
    async with lone_peer(spans[0], tiny) as (peer, link):
        for number in (0, 1):
            await ask(link, opening(tiny.fingerprint, 0, MIDDLE, session=session_id(number)))
        fault = await ask(link, frame)
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (code, session_id())
        await eventually(lambda: peer.budget.free_tokens == peer.budget.total_tokens - 64)
        assert isinstance(await ask(link, tokens_frame(1, (3,), session=session_id(1))), Result)


async def test_hidden_states_of_another_width_are_refused(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[1], tiny) as (_, link):
        await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS))
        fault = await ask(link, hidden_frame(1, torch.zeros(1, HIDDEN + 1)))
        assert isinstance(fault, Fault)
        assert "32 wide" in fault.text


@asynccontextmanager
async def watched(span: Span, tiny: Checkpoint) -> AsyncIterator[tuple[WatchedSpan, Peer, Link]]:
    """A peer in the middle of a chain, which is seen computing, and the link of the peer before
    it."""
    seen, previous = WatchedSpan(span), new_member()
    async with lone_peer(seen, tiny) as (peer, link), dialed(peer.server, me=previous) as before:  # type: ignore[arg-type]
        message = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=previous.peer_id)
        assert isinstance(await ask(link, message), Opened)
        yield seen, peer, before


def spoilt(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    hidden = torch.zeros(3, HIDDEN, dtype=dtype)
    hidden[1, 5] = value
    return hidden


@pytest.mark.threat("wrong-tensor")
@pytest.mark.parametrize("defended", [True, False])
async def test_hidden_states_of_another_width_are_not_computed(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(sessions, "check_frame", lambda *_: None)
    async with lone_peer(WatchedSpan(spans[1]), tiny) as (peer, link):  # type: ignore[arg-type]
        assert isinstance(await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS)), Opened)
        fault = await ask(link, hidden_frame(1, torch.zeros(3, HIDDEN + 1)))
        assert isinstance(fault, Fault)
        assert fault.code == (FaultCode.BAD_MESSAGE if defended else FaultCode.INTERNAL)
        assert bool(peer.span.batches) != defended  # type: ignore[attr-defined]


@pytest.mark.threat("not-finite")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_what_is_no_number_is_not_computed(
    value: float,
    defended: bool,
    spans: tuple[Span, ...],
    tiny: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not defended:
        monkeypatch.setattr(checks, "_fits", lambda *_: True)
    async with watched(spans[1], tiny) as (seen, _, before):
        await before.send(hidden_frame(1, spoilt(value)))
        await before.send(Ping(nonce=1))
        assert await soon(before.receive()) == Pong(nonce=1)
        if not defended:
            await eventually(lambda: bool(seen.batches))
        assert bool(seen.batches) != defended


@pytest.mark.threat("not-finite")
async def test_the_session_outlives_a_peer_that_sends_what_is_no_number(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    previous = new_member()
    async with (
        lone_peer(spans[1], tiny) as (peer, link),
        dialed(peer.server, me=previous) as before,
    ):
        message = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=previous.peer_id)
        assert isinstance(await ask(link, message), Opened)
        await before.send(hidden_frame(1, spoilt(float("nan"))))
        await before.send(hidden_frame(4, torch.zeros(1, HIDDEN)))  # what follows it has no place
        fault = await soon(link.receive())
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (FaultCode.NOT_FINITE, session_id())
        assert isinstance(await ask(link, hidden_frame(1, torch.zeros(1, HIDDEN), epoch=1)), Result)
        assert peer.handler.admission.refusals == {"not_finite": 1}


async def test_what_is_too_large_for_the_dtype_that_computes_is_refused(tiny: Checkpoint) -> None:
    narrow = Span.load(tiny, MIDDLE, LAYERS, dtype=torch.float16)
    async with lone_peer(narrow, tiny) as (_, link):
        await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS))
        assert isinstance(await ask(link, hidden_frame(1, spoilt(6e4))), Result)
        fault = await ask(link, hidden_frame(4, spoilt(1e6)))
        assert isinstance(fault, Fault)
        assert fault.code == FaultCode.NOT_FINITE
