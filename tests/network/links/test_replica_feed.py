"""What a peer that stands by is told: everything in order, and nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from helpers.loopback import eventually, soon, tokens_frame
from swarm.network.links.link import LinkClosed
from swarm.network.links.replica_feed import MAX_BEHIND_TOKENS, ReplicaFeed
from swarm.wire.messages import Frame, WireMessage


@dataclass
class Line:
    """What frames are sent to; while `free` is not set it takes none."""

    sent: list[WireMessage] = field(default_factory=list)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    connected: bool = True
    broken: bool = False
    released: int = 0

    async def connect(self) -> "Line":
        if not self.connected:
            raise LinkClosed("nowhere", "it does not answer")
        return self

    async def send(self, message: WireMessage) -> int:
        await self.free.wait()
        if self.broken:
            raise LinkClosed("somewhere", "it was lost")
        self.sent.append(message)
        return 1

    def release(self, line: "Line") -> None:
        assert line is self
        self.released += 1


FRAMES = [tokens_frame(first, (7, 8), tail=0, replay=0) for first in (1, 3, 5, 7)]


@asynccontextmanager
async def feeding(
    first: Iterator[Frame], **state: bool
) -> AsyncIterator[tuple[Line, "ReplicaFeed[Line]"]]:
    """In the end what was connected is released, once."""
    line = Line(**state)
    feed = ReplicaFeed(line.connect, line.release, first)
    yield line, feed
    await soon(feed.close())
    await soon(feed.close())
    assert feed.over
    assert line.released == line.connected


async def test_it_is_told_first_what_there_was_and_then_all_that_comes() -> None:
    async with feeding(iter(FRAMES[:2])) as (line, feed):
        feed.put(FRAMES[2])
        line.free.set()
        await eventually(lambda: line.sent == FRAMES[:3])
        feed.put(FRAMES[3])
        await eventually(lambda: line.sent == FRAMES)
        assert feed.uses(line)
        assert not feed.over


async def test_what_was_told_everything_is_handed_over() -> None:
    async with feeding(iter(FRAMES[:2])) as (line, feed):
        for frame in FRAMES[2:]:
            feed.put(frame)
        finishing = asyncio.create_task(feed.finish())
        await asyncio.sleep(0)
        assert not finishing.done()
        line.free.set()
        assert await soon(finishing) is line
        assert line.sent == FRAMES
        await feed.close()
        assert not line.released, "it belongs to whoever took it"
        line.release(line)


async def test_one_that_is_given_up_while_it_is_finished_is_released() -> None:
    async with feeding(iter(FRAMES)) as (_, feed):
        finishing = asyncio.create_task(feed.finish())
        await asyncio.sleep(0)
        finishing.cancel()


@pytest.mark.parametrize("state", [{"connected": False}, {"broken": True}])
async def test_one_that_fails_is_told_no_more_and_nobody_hears_of_it(
    state: dict[str, bool],
) -> None:
    async with feeding(iter(FRAMES), **state) as (line, feed):
        line.free.set()
        await eventually(lambda: feed.over)
        feed.put(FRAMES[0])
        with pytest.raises(LinkClosed):
            await feed.finish()
        assert not line.sent


async def test_what_cannot_be_told_ends_it_too() -> None:
    def nothing() -> Iterator[Frame]:
        yield FRAMES[0]
        raise IndexError("the rows are gone")

    async with feeding(nothing()) as (line, feed):
        line.free.set()
        await eventually(lambda: feed.over)
        assert line.sent == FRAMES[:1]


async def test_one_that_lags_too_far_behind_is_given_up() -> None:
    async with feeding(iter(())) as (_, feed):
        for _ in range(MAX_BEHIND_TOKENS // 2):
            feed.put(FRAMES[0])
        await asyncio.sleep(0)
        assert not feed.over
        for _ in range(2):
            feed.put(FRAMES[0])
        await eventually(lambda: feed.over)
