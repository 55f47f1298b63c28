"""First come, first served, and nobody waits in a line that is too long."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from support import eventually

from swarm.gateway.admission import MOST_RETRY_S, Admission
from swarm.gateway.errors import BadRequest, Overloaded


async def _hold(admission, count, name, order, until):
    async with admission.admit(count):
        order.append(name)
        await until.wait()


async def test_places_are_given_in_turn_and_many_at_once_are_not_overtaken():
    admission, order = Admission(places=4, waiting=8), []
    gates = {name: asyncio.Event() for name in "abcd"}
    tasks = {}
    for name, count in (("a", 3), ("b", 1), ("c", 4), ("d", 1)):
        tasks[name] = asyncio.create_task(_hold(admission, count, name, order, gates[name]))
        await asyncio.sleep(0)
    assert (order, admission.running, admission.waiting) == (["a", "b"], 4, 5)
    gates["b"].set()
    await tasks["b"]
    assert order == ["a", "b"]  # one place is free, and c, who is next, needs four
    gates["a"].set()
    await eventually(lambda: order == ["a", "b", "c"])
    gates["c"].set()
    gates["d"].set()
    await asyncio.gather(*tasks.values())
    assert (order, admission.running, admission.waiting) == (list("abcd"), 0, 0)


async def test_a_full_line_takes_nobody_and_says_when_to_come_back():
    now = [0.0]
    admission = Admission(places=1, waiting=1, clock=lambda: now[0])
    for _ in range(20):
        async with admission.admit():
            now[0] += 12.0
    async with AsyncExitStack() as life:
        await life.enter_async_context(admission.admit())
        waiting = asyncio.create_task(_hold(admission, 1, "b", [], asyncio.Event()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as told:
            await life.enter_async_context(admission.admit())
        assert (told.value.running, told.value.waiting) == (1, 1)
        assert 12.0 < told.value.retry_after_s <= MOST_RETRY_S
        waiting.cancel()
        await asyncio.wait({waiting})
        assert admission.waiting == 0


async def test_who_leaves_the_line_holds_nobody_up():
    admission, order, stay = Admission(places=2, waiting=8), [], asyncio.Event()
    holding = asyncio.create_task(_hold(admission, 1, "a", order, stay))
    await asyncio.sleep(0)
    greedy = asyncio.create_task(_hold(admission, 2, "b", order, stay))
    await asyncio.sleep(0)
    modest = asyncio.create_task(_hold(admission, 1, "c", order, stay))
    await asyncio.sleep(0)
    greedy.cancel()
    await eventually(lambda: order == ["a", "c"])
    stay.set()
    await asyncio.gather(holding, modest)
    assert admission.running == 0


async def test_who_is_called_and_leaves_at_the_same_time_gives_the_place_back():
    admission, stay = Admission(places=1, waiting=8), asyncio.Event()
    holding = asyncio.create_task(_hold(admission, 1, "a", [], stay))
    await asyncio.sleep(0)
    called = asyncio.create_task(_hold(admission, 1, "b", [], stay))
    await asyncio.sleep(0)
    admission._give_back(1)  # the place is b's, who does not know it yet
    called.cancel()
    await asyncio.wait({called})
    admission.running += 1  # a's own, which it gives back below
    stay.set()
    await holding
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_line_that_does_not_move_is_left_after_a_while():
    admission = Admission(places=1, waiting=1, patience_s=0.0)
    async with admission.admit():
        with pytest.raises(Overloaded):
            async with admission.admit():
                pass
    assert (admission.running, admission.waiting) == (0, 0)


async def test_more_than_all_places_are_never_given():
    with pytest.raises(BadRequest, match="at most 2"):
        async with Admission(places=2).admit(3):
            pass
