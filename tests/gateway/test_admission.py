"""Places are given first come, first served, and a full queue refuses requests."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from helpers.loopback import eventually
from swarm.gateway.admission import MOST_RETRY_S, AdmissionControl, Shares
from swarm.gateway.errors import BadRequest, Overloaded


async def _hold(admission, count, name, order, until, model="m"):
    async with admission.admit(model, count), admission.place(model, count):
        order.append(name)
        await until.wait()


async def test_places_are_given_in_turn_and_many_at_once_are_not_overtaken():
    admission, order = AdmissionControl(places=4, waiting=8), []
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
    admission = AdmissionControl(places=1, waiting=1, clock=lambda: now[0])
    for _ in range(20):
        async with admission.place("m"):
            now[0] += 12.0
    async with AsyncExitStack() as life:
        await life.enter_async_context(admission.admit("m"))
        await life.enter_async_context(admission.place("m"))
        waiting = asyncio.create_task(_hold(admission, 1, "b", [], asyncio.Event()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as told:
            await life.enter_async_context(admission.admit("m"))
        assert (told.value.running, told.value.waiting) == (1, 1)
        assert 12.0 < told.value.retry_after_s <= MOST_RETRY_S
        waiting.cancel()
        await asyncio.wait({waiting})
        assert admission.waiting == 0


async def test_who_leaves_the_line_holds_nobody_up():
    admission, order, stay = AdmissionControl(places=2, waiting=8), [], asyncio.Event()
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
    admission, stay = AdmissionControl(places=1, waiting=8), asyncio.Event()
    holding = asyncio.create_task(_hold(admission, 1, "a", [], stay))
    await asyncio.sleep(0)
    called = asyncio.create_task(_hold(admission, 1, "b", [], stay))
    await asyncio.sleep(0)
    admission._give_back("m", 1)  # the place is b's, who does not know it yet
    called.cancel()
    await asyncio.wait({called})
    admission._places.take("m", 1)  # a's own, which it gives back below
    stay.set()
    await holding
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_line_that_does_not_move_is_left_after_a_while():
    admission = AdmissionControl(places=1, waiting=1, patience_s=0.0)
    async with admission.place("m"):
        with pytest.raises(Overloaded):
            async with admission.place("m"):
                pass
    assert (admission.running, admission.waiting) == (0, 0)


async def test_more_than_all_places_are_never_given():
    with pytest.raises(BadRequest, match="at most 2"):
        async with AdmissionControl(places=2).admit("m", 3):
            pass


async def test_a_model_whose_texts_stand_still_leaves_places_to_the_others():
    admission, order, stay = AdmissionControl(places=8, waiting=8, models=2), [], asyncio.Event()
    dead = [
        asyncio.create_task(_hold(admission, 1, "dead", order, stay, "dead")) for _ in range(12)
    ]
    await eventually(lambda: (admission.running, admission.waiting) == (6, 6))
    with pytest.raises(Overloaded):
        async with admission.admit("dead"):
            pass
    live = [asyncio.create_task(_hold(admission, 1, "live", order, stay, "live")) for _ in range(4)]
    await eventually(lambda: (admission.running, admission.waiting) == (8, 8))
    assert order == ["dead"] * 6 + ["live"] * 2
    stay.set()
    await asyncio.gather(*dead, *live)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_many_places_are_not_taken_by_other_models_either():
    """Beyond a model's guaranteed share places go in turn: a request for many gets them."""
    admission, order = AdmissionControl(places=8, waiting=16, models=2), []
    gates = {name: asyncio.Event() for name in "abcd"}
    tasks = []
    for name, count, model in (("a", 4, "m"), ("b", 4, "m"), ("c", 2, "n"), ("d", 1, "n")):
        tasks.append(asyncio.create_task(_hold(admission, count, name, order, gates[name], model)))
        await asyncio.sleep(0)
    assert order == ["a", "c"]  # b waits for four of six, and d for b
    gates["a"].set()
    await eventually(lambda: order == ["a", "c", "b", "d"])
    for gate in gates.values():
        gate.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("models", [1, 2, 3, 8])
def test_shares_never_exceed_the_whole_and_what_is_sure_is_always_there(models):
    rng, names = random.Random(models), [f"m{number}" for number in range(models)]
    shares, held = Shares(32, models), []
    for _ in range(3000):
        model, count = rng.choice(names), rng.randint(1, 5)
        if rng.random() < 0.4 and held:
            shares.give_back(*held.pop(rng.randrange(len(held))))
        elif shares.guarantees(model, count) or shares.fits(model, count):
            shares.take(model, count)
            held.append((model, count))
        assert shares.taken.total() <= 32
        for name in names:
            left = 32 // (2 * models) * (models > 1) - shares.taken[name]
            assert left <= 0 or shares.fits(name, left)
