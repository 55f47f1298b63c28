"""What is put is written in its order, whoever loses patience meanwhile."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.loopback import soon
from swarm.network.links.outbox import Outbox


class Line:
    """Takes one item each time `go_on` is called."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self._turn = asyncio.Semaphore(0)
        self.broken = False

    async def write(self, item: int) -> None:
        await self._turn.acquire()
        if self.broken:
            raise ConnectionError("it broke")
        self.written.append(item)

    def go_on(self, items: int = 1) -> None:
        for _ in range(items):
            self._turn.release()


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 5)), max_size=12))
def test_all_that_was_put_is_written_in_order_whoever_is_cancelled(
    steps: list[tuple[bool, int, int]],
) -> None:
    """Each step puts an item, lets the line take some, gives tasks some turns, and may cancel the
    one that waits."""

    async def live() -> None:
        line = Line()
        outbox = Outbox(line.write)
        for number, (cancelled, taken, turns) in enumerate(steps):
            outbox.put(number)
            waiting = asyncio.create_task(outbox.written())
            line.go_on(taken)
            for _ in range(turns):
                await asyncio.sleep(0)
            if cancelled:
                waiting.cancel()
            await asyncio.wait({waiting}, timeout=0)
            if waiting.done() and not waiting.cancelled():
                assert line.written == list(range(number + 1))
        line.go_on(len(steps))
        await soon(outbox.written())
        assert line.written == list(range(len(steps)))

    asyncio.run(live())


async def test_a_failure_is_told_to_all_until_it_is_dropped() -> None:
    line = Line()
    outbox = Outbox(line.write)
    line.broken = True
    outbox.put(1)
    line.go_on()
    for number in (2, 3):
        with pytest.raises(ConnectionError):
            await soon(outbox.written())
        outbox.put(number)
    await outbox.drop()
    await soon(outbox.written())
    line.broken = False
    outbox.put(4)
    line.go_on()
    await soon(outbox.written())
    assert line.written == [4]


async def test_what_is_dropped_is_not_written() -> None:
    line = Line()
    outbox = Outbox(line.write)
    outbox.put(1)
    outbox.put(2)
    await asyncio.sleep(0)
    await outbox.drop()
    await outbox.drop()
    line.go_on(2)
    outbox.put(3)
    await soon(outbox.written())
    assert line.written == [3]
