"""Peers of a real model that take the place of others in the middle of a stream: what follows is as if they had not.

The client here is the least that does what `swarm.failover` does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from architectures import LAYERS
from support import Peer, dialed, eventually, opening, session_id, soon, tokens_frame

from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span, Work
from swarm.network.link import Link
from swarm.wire import stream
from swarm.wire.messages import Close, Fault, FaultCode, Frame, Message, Opened, Reroute, Rerouted, Result
from swarm.wire.stream import replayed

# The text goes on behind token 5 with 21 and 22; 20, 31 and 41 are branches that lose.
PROMPT = tokens_frame(1, (11, 12, 13, 14, 15), tail=1)
TREE = tokens_frame(6, (20, 21, 22, 31), root=5, parents=(1, 2, 1, 2))
TEXT = (11, 12, 13, 14, 15, 21, 22)
ROOT = 8  # the serial of token 22
LOST = tokens_frame(10, (23, 24, 41), root=8, parents=(2, 1, 4))
AGAIN = tokens_frame(13, (23, 24, 41), root=8, parents=(5, 1, 7), epoch=1)
AFTER = tokens_frame(16, (25,), root=13, parents=(2,), epoch=1)
PATHS = [(23,), (23, 24), (41,)]  # of the tokens of LOST and AGAIN, behind the text


@dataclass
class Stage:
    """A peer of the chain and the client's link to it."""

    peer: Peer
    link: Link
    first: int
    last: int


class Chain:
    """The client's end of it."""

    def __init__(self, peers: AsyncExitStack, tiny: Checkpoint) -> None:
        self.stages: list[Stage] = []
        self._peers, self._tiny = peers, tiny

    async def start(self, *cuts: int, history_bytes: int = 1 << 20) -> list[Stage]:
        """Peers for the layers between the cuts."""
        stages = []
        for first, last in pairwise(cuts):
            span = Span.load(self._tiny, first, last)
            peer = Peer(span, self._tiny.fingerprint, history_bytes=history_bytes)
            await self._peers.enter_async_context(peer)
            link = await self._peers.enter_async_context(dialed(peer.server))
            stages.append(Stage(peer, link, first, last))
        return stages

    async def open(self, stages: list[Stage], behind: Stage | None) -> None:
        for stage, following in zip(stages, [*stages[1:], behind], strict=True):
            hop = following.peer.server.hop if following else None
            await stage.link.send(opening(self._tiny.fingerprint, stage.first, stage.last, next=hop))
            assert isinstance(await soon(stage.link.receive()), Opened)

    async def send(self, frame: Frame) -> None:
        await self.stages[0].link.send(frame)

    async def heard(self, place: int = -1) -> Message:
        message: Message = await soon(self.stages[place].link.receive())
        return message

    async def ask(self, frame: Frame) -> torch.Tensor:
        """The final hidden states behind a frame."""
        await self.send(frame)
        result = await self.heard()
        assert isinstance(result, Result), result
        assert (result.epoch, result.first, result.count) == (frame.epoch, frame.first, frame.count)
        return result.hidden.unpack()

    async def replace(self, start: int, end: int, *cuts: int) -> Message | None:
        """Put new peers in the place of some. What the peer before them answers."""
        new = await self.start(*cuts)
        behind = self.stages[end] if end < len(self.stages) else None
        await self.open(new, behind)
        self.stages[start:end] = new
        further = len(new) - 1
        if start:
            hop = new[0].peer.server.hop
            message = Reroute(session=session_id(), epoch=1, root=ROOT, next=hop, replay=further)
            await self.stages[start - 1].link.send(message)
            return await self.heard(start - 1)
        for first, which, root, parents in replayed(ROOT, len(TEXT)):
            await self.send(
                tokens_frame(first, TEXT[which], root=root, parents=parents, epoch=1, tail=0, replay=further)
            )
        return None

    async def die(self, *places: int) -> None:
        """Without a word."""
        for place in places:
            for link in [*self.stages[place].peer.server.links, self.stages[place].link]:
                link._transport.abort()
            if place and place - 1 not in places:
                fault = await self.heard(place - 1)
                assert isinstance(fault, Fault)
                assert fault.peer == self.stages[place].peer.server.identity.peer_id


@asynccontextmanager
async def chain(tiny: Checkpoint, *cuts: int, **options: int) -> AsyncIterator[Chain]:
    """Opened; in the end nothing may be left of it on any peer."""
    async with AsyncExitStack() as peers:
        client = Chain(peers, tiny)
        client.stages = await client.start(*cuts, **options)
        await client.open(client.stages, None)
        yield client
        for stage in client.stages:
            await stage.link.send(Close(session=session_id()))
        for stage in client.stages:
            await eventually(lambda peer=stage.peer: peer.idle)  # type: ignore[misc]


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@pytest.fixture(autouse=True)
def _short_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_FRAME_TOKENS", 3)  # a replay of several


def at_the_end_of(span: Span, paths: list[tuple[int, ...]]) -> torch.Tensor:
    """What the whole model says behind the text and each of the paths."""
    texts = [torch.tensor((*TEXT, *path)) for path in paths]
    return torch.cat([span.forward([Work.behind(span.new_cache(), text)])[0][-1:] for text in texts])


async def begun(client: Chain) -> None:
    """Up to where the text is known, with more in flight."""
    await client.ask(PROMPT)
    await client.ask(TREE)


async def goes_on(client: Chain, span: Span) -> None:
    for frame, paths in ((AGAIN, PATHS), (AFTER, [(23, 24, 25)])):
        torch.testing.assert_close(await client.ask(frame), at_the_end_of(span, paths), rtol=1e-4, atol=1e-4)


async def test_a_chain_that_nothing_happens_to(span: Span, tiny: Checkpoint) -> None:
    """The measure of the others."""
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        torch.testing.assert_close(await client.ask(LOST), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4)


async def test_two_peers_take_the_place_of_the_middle_one(span: Span, tiny: Checkpoint) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        first = client.stages[0].peer.handler._sessions[session_id()]
        await client.die(1)
        await client.send(LOST)
        assert await client.replace(1, 2, 1, 2, 3) == Rerouted(session=session_id(), epoch=1)
        await goes_on(client, span)
        assert [stage.peer.handler.sessions for stage in client.stages] == [1, 1, 1, 1]
        assert first.stream.length == first._cache.length == len(TEXT) + 3


async def test_the_result_is_the_same_to_the_bit_where_the_frames_are(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_FRAME_TOKENS", ROOT)
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
            await client.open(new, client.stages[2])
            client.stages[1:2] = new
            hop = new[0].peer.server.hop
            await client.stages[0].link.send(Reroute(session=session_id(), epoch=epoch, root=ROOT, next=hop))
            assert await client.heard(0) == Rerouted(session=session_id(), epoch=epoch)
        frame = AGAIN.model_copy(update={"epoch": 4})
        torch.testing.assert_close(await client.ask(frame), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4)


async def test_a_peer_that_was_left_may_come_back(span: Span, tiny: Checkpoint) -> None:
    """What was on its way to it, over the link that it shares with what comes now, means nothing any more."""
    async with chain(tiny, 0, 2, 3, 4) as client:
        await begun(client)
        first, middle = client.stages[:2]
        await client.send(LOST)
        await middle.link.send(Close(session=session_id()))
        await client.send(LOST.model_copy(update={"first": 13, "parents": (5, 1, 7)}))
        hop = middle.peer.server.hop
        message = opening(tiny.fingerprint, 2, 3, next=client.stages[2].peer.server.hop, epoch=1)
        await middle.link.send(message)
        assert isinstance(await soon(middle.link.receive()), Opened)
        await first.link.send(Reroute(session=session_id(), epoch=1, root=ROOT, next=hop))
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=1)
        frame = AGAIN.model_copy(update={"first": 16, "parents": (8, 1, 10)})
        await client.send(frame)
        while isinstance(result := await client.heard(), Result) and result.epoch == 0:
            pass  # of what had passed before
        assert isinstance(result, Result), result
        torch.testing.assert_close(result.hidden.unpack(), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4)


async def test_a_peer_without_a_history_is_replaced_together_with_the_failed_one(span: Span, tiny: Checkpoint) -> None:
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
        message = opening(tiny.fingerprint, 1, 3, max_tokens=5, next=client.stages[2].peer.server.hop)
        await small.link.send(message)
        assert isinstance(await soon(small.link.receive()), Opened)
        before = client.stages[0].link
        await before.send(Reroute(session=session_id(), epoch=1, root=ROOT, next=small.peer.server.hop))
        fault = await soon(small.link.receive())
        assert isinstance(fault, Fault)
        assert (fault.code, "opened for 5 tokens" in fault.text) == (FaultCode.BAD_MESSAGE, True)
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=1), "it was sent, and no more is known"
        await eventually(lambda: small.peer.idle)
        new = await client.start(1, 3)
        await client.open(new, client.stages[2])
        client.stages[1:2] = new
        await before.send(Reroute(session=session_id(), epoch=2, root=ROOT, next=new[0].peer.server.hop))
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=2)
        frame = AGAIN.model_copy(update={"epoch": 2})
        torch.testing.assert_close(await client.ask(frame), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4)


async def test_a_new_peer_that_dies_while_it_is_given_what_it_needs_is_replaced(span: Span, tiny: Checkpoint) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        await client.die(1)
        client.stages[1:2] = await client.start(1, 2, 3)
        await client.open(client.stages[1:3], client.stages[3])
        hop = client.stages[1].peer.server.hop
        second = client.stages[2]
        dead = asyncio.create_task(client.die(2))  # in the middle of it, or before, or behind
        message = Reroute(session=session_id(), epoch=1, root=ROOT, next=hop, replay=1)
        await client.stages[0].link.send(message)
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=1)
        await soon(dead)
        client.stages[2:3] = await client.start(2, 3)
        assert client.stages[2] is not second
        await client.open(client.stages[2:3], client.stages[3])
        hop = client.stages[2].peer.server.hop
        await client.stages[1].link.send(Reroute(session=session_id(), epoch=2, root=ROOT, next=hop))
        assert await client.heard(1) == Rerouted(session=session_id(), epoch=2)
        frame = AGAIN.model_copy(update={"epoch": 2})
        torch.testing.assert_close(await client.ask(frame), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4)
