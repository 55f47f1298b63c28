"""Finished texts join those of their owner, between the drafts of other texts."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from helpers.loopback import eventually, soon
from helpers.swarm_in_process import PROMPT, STAGES, Swarm, swarm_of
from swarm.client import text_memory
from swarm.client.text_memory import TextMemory
from swarm.decoding.drafting.copying import CopyDrafter
from swarm.decoding.drafting.earlier import SLICE, EarlierTexts


def known(earlier: EarlierTexts) -> int:
    return sum(map(len, earlier.parts))


async def test_a_text_joins_those_of_its_owner_and_no_others(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        memory = swarm.memory = TextMemory()

        async def write(**options: Any) -> None:
            assert (await soon(swarm.write(**options))).token_ids == expected

        for nothing in ({"owner": None}, {"remember": False}, {"lookup": False}, {"window": 0}):
            await write(**nothing)
        assert len(memory) == 0
        await write(owner="me")
        whole = len(PROMPT) + len(expected)
        await eventually(lambda: known(memory.of("me")) == whole)
        await write(owner="me")
        assert known(memory.of("me")) == whole
        assert tokens_after(memory, "me", PROMPT, len(expected)) == list(expected)
        assert tokens_after(memory, "you", PROMPT, len(expected)) == []


async def test_drafts_have_their_turn_while_a_long_text_is_added() -> None:
    memory = TextMemory()
    earlier, text = memory.of("me"), range(20 * SLICE)
    with ThreadPoolExecutor(1) as drafting:
        memory.add(earlier, text, drafting)
        await asyncio.sleep(0)  # it has begun
        at_the_draft = await asyncio.wrap_future(drafting.submit(known, earlier))
        assert at_the_draft <= 2 * SLICE
        await eventually(lambda: known(earlier) == len(text))
        await memory.close()


async def test_texts_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_memory, "MAX_WAITING", 2)
    memory = TextMemory()
    earlier = memory.of("me")
    with ThreadPoolExecutor(1) as drafting:
        for first in range(0, 40, 10):
            memory.add(earlier, range(first, first + 10), drafting)
        await eventually(lambda: known(earlier) == 20)
        assert tokens_after(memory, "me", [30], 9) == list(range(31, 40))
        await memory.close()


async def test_nothing_is_added_any_more_once_it_is_closed() -> None:
    memory = TextMemory()
    earlier = memory.of("me")
    with ThreadPoolExecutor(1) as drafting:
        memory.add(earlier, range(20 * SLICE), drafting)
        await asyncio.sleep(0)
        await memory.close()
        await asyncio.wrap_future(drafting.submit(int))
        assert known(earlier) <= 2 * SLICE


def tokens_after(memory: TextMemory, owner: str, text: Sequence[int], count: int) -> list[int]:
    """Return what is drafted for an owner behind a text."""
    return [guess.token for guess in CopyDrafter(earlier=memory.of(owner)).draft(text, count)]
