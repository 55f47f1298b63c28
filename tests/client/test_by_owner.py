"""Every owner has texts and corrections of its own, as many owners as there is room for."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from helpers.loopback import soon
from helpers.swarm_in_process import PROMPT, STAGES, Swarm, swarm_of
from swarm.client.by_owner import ByOwner
from swarm.decoding.drafting.copying import CopyDrafter
from swarm.decoding.drafting.correction import Correction
from swarm.decoding.drafting.earlier import EarlierTexts


def test_an_owner_finds_its_own_texts_again_and_no_others():
    memory = ByOwner(EarlierTexts, most=32)
    mine = memory.of("me")
    mine.add([1, 2, 3])
    assert memory.of("me") is mine
    assert [len(runs) for runs in memory.of("you").parts] == [0]


@pytest.mark.parametrize("make", [EarlierTexts, partial(Correction, 8)], ids=["texts", "draft"])
def test_the_owner_that_wrote_last_longest_ago_is_forgotten(make: Callable[[], Any]):
    memory = ByOwner(make, most=2)
    first, second = memory.of("first"), memory.of("second")
    assert memory.of("first") is first
    memory.of("third")
    assert memory.of("first") is first
    assert memory.of("second") is not second


async def test_a_text_joins_those_of_its_owner_and_no_others(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        memory = swarm.memory = ByOwner(EarlierTexts, most=32)

        async def write(**options: Any) -> None:
            assert (await soon(swarm.write(**options))).token_ids == expected
            await soon(swarm.drafted())  # it is added in the drafting thread

        for nothing in ({"owner": None}, {"remember": False}, {"lookup": False}, {"window": 0}):
            await write(**nothing)
        assert len(memory) == 0
        await write(owner="me")
        await write(owner="me")
        assert [len(runs) for runs in memory.of("me").parts] == [len(PROMPT) + len(expected)]
        assert tokens_after(memory, "me", PROMPT, len(expected)) == list(expected)
        assert tokens_after(memory, "you", PROMPT, len(expected)) == []


def tokens_after(
    memory: ByOwner[EarlierTexts], owner: str, text: Sequence[int], count: int
) -> list[int]:
    """Return what is drafted for an owner behind a text."""
    return [guess.token for guess in CopyDrafter(earlier=memory.of(owner)).draft(text, count)]
