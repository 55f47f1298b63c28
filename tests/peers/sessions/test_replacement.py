"""Peers of a real model that take the place of others in the middle of a stream: what follows is as
if they had not."""

import asyncio

import pytest
import torch

from helpers.least_client import (
    AFTER,
    AGAIN,
    LOST,
    PATHS,
    ROOT,
    TEXT,
    at_the_end_of,
    begun,
    chain,
    goes_on,
)
from helpers.loopback import eventually, opening, session_id, soon, tokens_frame
from helpers.models import LAYERS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.wire import token_tree
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Close,
    Fault,
    Opened,
    Reroute,
    Rerouted,
    Result,
)


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@pytest.fixture(autouse=True)
def _short_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_tree, "MAX_FRAME_TOKENS", 3)  # a replay of several


async def test_a_chain_that_nothing_happens_to(span: Span, tiny: Checkpoint) -> None:
    """The measure of the others."""
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        torch.testing.assert_close(
            await client.ask(LOST), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4
        )


async def test_two_peers_take_the_place_of_the_middle_one(span: Span, tiny: Checkpoint) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        first = client.stages[0].peer.handler.sessions[session_id()]
        await client.die(1)
        await client.send(LOST)
        assert await client.replace(1, 2, 1, 2, 3) == Rerouted(session=session_id(), epoch=1)
        await goes_on(client, span)
        assert [len(stage.peer.handler.sessions) for stage in client.stages] == [1, 1, 1, 1]
        counters = client.stages[0].peer.handler.counters
        assert (counters.reroutes, counters.replays) == (1, 1)
        assert first.tree.length == first._cache.length == len(TEXT) + 3


async def test_the_result_is_the_same_to_the_bit_where_the_frames_are(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_tree, "MAX_FRAME_TOKENS", ROOT)
    text = tokens_frame(1, (10, *TEXT), tail=1)
    async with chain(tiny, 0, 1, 3, 4) as undisturbed, chain(tiny, 0, 1, 3, 4) as client:
        assert torch.equal(await undisturbed.ask(text), await client.ask(text))
        await client.die(1)
        assert await client.replace(1, 2, 1, 2, 3) == Rerouted(session=session_id(), epoch=1)
        for frame in (AGAIN, AFTER):
            assert torch.equal(await undisturbed.ask(frame), await client.ask(frame))


@pytest.mark.parametrize(
    ("failed", "new"),
    [
        ([0], [(0, 1, 0, 1, 2)]),
        ([2], [(2, 3, 3, 4)]),
        ([1, 2], [(1, 3, 2, 3, 4)]),
        ([0, 2], [(0, 1, 0, 2), (2, 3, 3, 4)]),
        ([0, 1, 2], [(0, 3, 0, 1, 4)]),
    ],
    ids=["first", "last", "the last two", "first and last", "all"],
)
async def test_any_others_are_replaced_too(
    span: Span, tiny: Checkpoint, failed: list[int], new: list[tuple[int, ...]]
) -> None:
    async with chain(tiny, 0, 2, 3, 4) as client:
        await begun(client)
        await client.die(*failed)
        grown = 0
        for start, end, *cuts in new:
            answer = await client.replace(start + grown, end + grown, *cuts)
            assert answer == (Rerouted(session=session_id(), epoch=1) if start else None)
            grown += len(cuts) - 1 - (end - start)
        await goes_on(client, span)


async def test_the_same_place_may_be_taken_again_and_again(span: Span, tiny: Checkpoint) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        for epoch in range(1, 5):
            await client.die(1)
            new = await client.start(1, 3)
            await client.open(new, client.stages[2], client.stages[0])
            client.stages[1:2] = new
            hop = new[0].peer.server.hop
            await client.stages[0].link.send(
                Reroute(session=session_id(), epoch=epoch, root=ROOT, next=hop)
            )
            assert await client.heard(0) == Rerouted(session=session_id(), epoch=epoch)
        frame = AGAIN.model_copy(update={"epoch": 4})
        torch.testing.assert_close(
            await client.ask(frame), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4
        )


async def test_a_peer_that_was_left_may_come_back(span: Span, tiny: Checkpoint) -> None:
    """What was on its way to it, over the link that it shares with what comes now, means nothing
    any more."""
    async with chain(tiny, 0, 2, 3, 4) as client:
        await begun(client)
        first, middle = client.stages[:2]
        await client.send(LOST)
        await middle.link.send(Close(session=session_id()))
        await client.send(LOST.model_copy(update={"first": 13, "parents": (5, 1, 7)}))
        hop = middle.peer.server.hop
        next_link, previous = client.stages[2].peer.server.hop, first.peer.id
        message = opening(tiny.fingerprint, 2, 3, next=next_link, previous=previous, epoch=1)
        await middle.link.send(message)
        assert isinstance(await soon(middle.link.receive()), Opened)
        await first.link.send(Reroute(session=session_id(), epoch=1, root=ROOT, next=hop))
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=1)
        frame = AGAIN.model_copy(update={"first": 16, "parents": (8, 1, 10)})
        await client.send(frame)
        while isinstance(result := await client.heard(), Result) and result.epoch == 0:
            pass  # of what had passed before
        assert isinstance(result, Result), result
        torch.testing.assert_close(
            result.hidden.unpack(), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4
        )


async def test_a_peer_without_a_history_is_replaced_together_with_the_failed_one(
    span: Span, tiny: Checkpoint
) -> None:
    async with chain(tiny, 0, 1, 3, 4, history_bytes=100) as client:
        await begun(client)
        await client.die(1)
        before = client.stages[0]
        hop = (await client.start(1, 3))[0].peer.server.hop
        await before.link.send(Reroute(session=session_id(), epoch=1, root=ROOT, next=hop))
        fault = await client.heard(0)
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer, fault.session) == (FaultCode.NO_HISTORY, None, session_id())
        await eventually(lambda: before.peer.idle)
        await client.replace(0, 2, 0, 1, 2, 3)
        await goes_on(client, span)


async def test_a_new_peer_without_enough_room_says_so_and_another_one_takes_the_place(
    span: Span, tiny: Checkpoint
) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        await client.die(1)
        small = (await client.start(1, 3))[0]
        next_link, previous = client.stages[2].peer.server.hop, client.stages[0].peer.id
        message = opening(tiny.fingerprint, 1, 3, max_tokens=5, next=next_link, previous=previous)
        await small.link.send(message)
        assert isinstance(await soon(small.link.receive()), Opened)
        before = client.stages[0].link
        await before.send(
            Reroute(session=session_id(), epoch=1, root=ROOT, next=small.peer.server.hop)
        )
        fault = await soon(small.link.receive())
        assert isinstance(fault, Fault)
        assert (fault.code, "opened for 5 tokens" in fault.text) == (FaultCode.BAD_MESSAGE, True)
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=1), (
            "it was sent, and no more is known"
        )
        await eventually(lambda: small.peer.idle)
        new = await client.start(1, 3)
        await client.open(new, client.stages[2], client.stages[0])
        client.stages[1:2] = new
        await before.send(
            Reroute(session=session_id(), epoch=2, root=ROOT, next=new[0].peer.server.hop)
        )
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=2)
        frame = AGAIN.model_copy(update={"epoch": 2})
        torch.testing.assert_close(
            await client.ask(frame), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4
        )


async def test_a_new_peer_that_dies_while_it_is_given_what_it_needs_is_replaced(
    span: Span, tiny: Checkpoint
) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        await client.die(1)
        client.stages[1:2] = await client.start(1, 2, 3)
        await client.open(client.stages[1:3], client.stages[3], client.stages[0])
        hop = client.stages[1].peer.server.hop
        second = client.stages[2]
        dead = asyncio.create_task(client.die(2))  # in the middle of it, or before, or behind
        message = Reroute(session=session_id(), epoch=1, root=ROOT, next=hop, replay=1)
        await client.stages[0].link.send(message)
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=1)
        await soon(dead)
        client.stages[2:3] = await client.start(2, 3)
        assert client.stages[2] is not second
        await client.open(client.stages[2:3], client.stages[3], client.stages[1])
        hop = client.stages[2].peer.server.hop
        await client.stages[1].link.send(
            Reroute(session=session_id(), epoch=2, root=ROOT, next=hop)
        )
        assert await client.heard(1) == Rerouted(session=session_id(), epoch=2)
        frame = AGAIN.model_copy(update={"epoch": 2})
        torch.testing.assert_close(
            await client.ask(frame), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4
        )
