"""Sessions are opened over real links: once, within limits, or not at all."""

import asyncio
from typing import Any

import pytest
import torch

from helpers.lone_peer import (
    HIDDEN,
    MIDDLE,
    NOBODY,
    hang,
    lone_peer,
    refused,
    told_to_come_back,
)
from helpers.loopback import (
    Server,
    ask,
    dialed,
    eventually,
    hidden_frame,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from peers.access.limits import AccessLimits
from peers.compute.cache_budget import CacheBudget
from peers.compute.scheduler import Scheduler
from peers.sessions import openings
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.util.tasks import end
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Close, Fault, Opened, Result
from swarm.wire.token_tree import MAX_TAIL


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"fingerprint": "f" * 32}, FaultCode.WRONG_MODEL),
        ({"first": 1}, FaultCode.WRONG_LAYERS),
        ({"last": LAYERS + 1}, FaultCode.WRONG_LAYERS),
        ({"max_tokens": 256 + MAX_TAIL + 1}, FaultCode.BAD_MESSAGE),
        ({"max_tokens": 129}, FaultCode.BUSY),
    ],
    ids=lambda value: str(value),
)
async def test_sessions_that_cannot_be_are_refused(
    spans: tuple[Span, ...], tiny: Checkpoint, change: dict[str, Any], code: FaultCode
) -> None:
    async with lone_peer(spans[1], tiny, cache_tokens=128) as (peer, link):
        fields = {"fingerprint": tiny.fingerprint, "first": MIDDLE, "last": LAYERS} | change
        assert await refused(link, opening(**fields)) == code
        assert peer.idle


async def test_a_session_is_opened_once(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link), dialed(peer.server) as other:
        message = opening(tiny.fingerprint, 0, MIDDLE)
        assert isinstance(await ask(link, message), Opened)
        for again in (link, other):
            assert await refused(again, message) == FaultCode.BAD_MESSAGE
        assert len(peer.handler.sessions) == 1
        assert peer.budget.free_tokens == peer.budget.total_tokens - 64


async def test_sessions_are_bounded_in_number(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[0], tiny, limits=AccessLimits(sessions=1)) as (_, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        assert await told_to_come_back(
            link, opening(tiny.fingerprint, 0, MIDDLE, session=session_id(2))
        )


async def test_a_draining_peer_takes_no_more(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        peer.handler.sessions.draining = True
        second = opening(tiny.fingerprint, 0, MIDDLE, session=session_id(2))
        assert await refused(link, second) == FaultCode.DRAINING
        assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)
        await peer.handler.close()
        told = await soon(link.receive())
        assert isinstance(told, Fault)
        assert told.code == FaultCode.DRAINING
        assert peer.idle


async def test_sessions_may_end_by_themselves_before_layers_are_put_down(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        resting = asyncio.create_task(peer.handler.put_down(grace_s=60.0))
        assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)
        await link.send(Close(session=session_id()))
        await soon(resting)
        assert peer.idle


async def test_other_layers_are_taken_up_while_links_stay_open(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        await soon(peer.handler.put_down())
        told = await soon(link.receive())
        assert isinstance(told, Fault)
        assert told.code == FaultCode.DRAINING
        assert peer.idle
        assert await refused(link, opening(tiny.fingerprint, 0, MIDDLE)) == FaultCode.DRAINING

        scheduler, budget = Scheduler(spans[1]), CacheBudget(100)
        computing = asyncio.create_task(scheduler.run())
        peer.handler.take_up(scheduler, budget)
        assert await refused(link, opening(tiny.fingerprint, 0, MIDDLE)) == FaultCode.WRONG_LAYERS
        assert isinstance(await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS)), Opened)
        assert isinstance(await ask(link, hidden_frame(1, torch.zeros(1, HIDDEN))), Result)
        assert budget.free_tokens == 36
        await peer.handler.close()
        assert budget.free_tokens == 100
        await end(computing)


async def test_an_opening_that_fails_at_the_last_step_keeps_nothing(
    spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    async with lone_peer(spans[0], tiny) as (peer, link), Server(hang) as following:
        monkeypatch.setattr(spans[0], "new_cache", fail)
        message = opening(tiny.fingerprint, 0, MIDDLE, next=following.hop)
        assert await refused(link, message) == FaultCode.INTERNAL
        assert peer.idle
        assert not any(peer.handler.sessions.next_links._users.values())


@pytest.mark.parametrize("how", ["close", "leave"])
async def test_a_client_that_does_not_wait_for_the_next_peer_leaves_nothing(
    spans: tuple[Span, ...], tiny: Checkpoint, how: str
) -> None:
    mute = await asyncio.start_server(lambda *_: hang(None), "127.0.0.1", 0)  # type: ignore[arg-type]
    hop = NOBODY.model_copy(update={"address": f"127.0.0.1:{mute.sockets[0].getsockname()[1]}"})
    async with lone_peer(spans[0], tiny) as (peer, link):
        await link.send(opening(tiny.fingerprint, 0, MIDDLE, next=hop))
        await eventually(lambda: peer.budget.free_tokens < peer.budget.total_tokens)
        await (link.send(Close(session=session_id())) if how == "close" else link.close())
        await eventually(lambda: peer.idle)
        assert not peer.handler.sessions
    mute.close()


async def test_openings_of_one_link_are_bounded(
    spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "MAX_OPENING_PER_LINK", 1)
    mute = await asyncio.start_server(lambda *_: hang(None), "127.0.0.1", 0)  # type: ignore[arg-type]
    hop = NOBODY.model_copy(update={"address": f"127.0.0.1:{mute.sockets[0].getsockname()[1]}"})
    async with lone_peer(spans[0], tiny) as (_, link):
        await link.send(opening(tiny.fingerprint, 0, MIDDLE, next=hop))
        assert await told_to_come_back(
            link, opening(tiny.fingerprint, 0, MIDDLE, session=session_id(2))
        )
    mute.close()
