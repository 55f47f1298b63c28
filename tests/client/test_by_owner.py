"""Every owner has texts and corrections of its own, as many owners as there is room for."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from swarm.client.by_owner import ByOwner
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
