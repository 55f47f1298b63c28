"""A model whose layers keep states, over real peers: token for token as undisturbed.

Texts roll back with every rejected draft, peers die and are replaced by replay or by those that
stand by, sessions are kept for the next turn, and others compute a text again.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.loopback import soon
from helpers.recurrent_models import RECURRENT
from helpers.strikes import WAY_NAMES, WAYS, killing, when_all_stand_by
from helpers.swarm_in_process import NEW, PROMPT, STAGES, Material, Swarm, greedy_text, swarm_of
from swarm.outputs import Generation

REMARK = [11, 12, 13]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def material(folder: Path) -> Material:
    return Material.load(folder, architecture=RECURRENT["qwen3_next"])


def whole(folder: Path, prompt: list[int]) -> tuple[int, ...]:
    """The text of transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder / "target", dtype=torch.float32)
    return greedy_text(model, prompt)


@pytest.fixture(scope="module")
def expected(material: Material, folder: Path) -> tuple[int, ...]:
    return whole(folder, PROMPT)


@pytest.fixture(scope="module")
def next_text(folder: Path, expected: tuple[int, ...]) -> tuple[int, ...]:
    return whole(folder, [*PROMPT, *expected, *REMARK])


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
async def test_windows_and_flushes(
    way: dict[str, Any], make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(swarm.write(**way))
        assert text.token_ids == expected
        if way.get("window", 1):
            assert 0 < text.stats.accepted_tokens <= text.stats.drafted_tokens


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize("stages", [(0,), (1,), (2,), (0, 1, 2)])
async def test_peers_that_die_are_replaced(
    stages: tuple[int, ...],
    way: dict[str, Any],
    make: Callable[[], Swarm],
    expected: tuple[int, ...],
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(killing(*stages), **way))
        assert text.token_ids == expected
        gone = [peer_id for failover in text.stats.failovers for peer_id in failover.peers]
        assert len(gone) == len(stages)


@pytest.mark.parametrize("stage", [0, 1, 2])
async def test_one_that_stands_by_takes_the_place(
    stage: int, make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(when_all_stand_by(killing(stage)), standby=True))
        assert text.token_ids == expected
        assert [(f.standby, f.replayed_tokens) for f in text.stats.failovers] == [(True, 0)]


@pytest.mark.parametrize("way", [*WAYS, {"standby": True}], ids=[*WAY_NAMES, "standby"])
async def test_the_next_turn_goes_on_where_the_last_one_ended(
    way: dict[str, Any], make: Callable[[], Swarm], next_text: tuple[int, ...]
) -> None:
    spares = STAGES if way.get("standby") else []
    async with swarm_of(make, *STAGES, *spares) as swarm:
        first = await swarm.write(keep=True, **way)
        prompt = [*PROMPT, *first.token_ids, *REMARK]
        second = await swarm.write(prompt=prompt, keep=True, **way)
        assert second.token_ids == next_text
        assert second.stats.cached_tokens == len(PROMPT) + NEW - 1


async def test_honest_peers_agree(make: Callable[[], Swarm], expected: tuple[int, ...]) -> None:
    async with swarm_of(make, *STAGES, *STAGES, *STAGES) as swarm, swarm.audits() as audits:
        for way in WAYS:
            assert (await soon(swarm.write(**way))).token_ids == expected
        await soon(audits.settle())
        assert (audits.audits.texts, audits.audits.disagreements) == (len(WAYS), 0)


async def test_texts_side_by_side(
    make: Callable[[], Swarm], expected: tuple[int, ...], next_text: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        turn = [*PROMPT, *expected, *REMARK]
        texts: list[Generation] = await soon(
            asyncio.gather(*(swarm.write(prompt=p) for p in (PROMPT, turn, PROMPT, turn)))
        )
        assert [text.token_ids for text in texts] == [expected, next_text] * 2
        assert any(len(batch) > 1 for peer in swarm.up for batch in peer.span.batches)


async def test_a_text_that_shares_only_a_beginning_is_read_as_ever(
    make: Callable[[], Swarm],
) -> None:
    """A state cannot be cut where two texts part: no peer is asked, and no session is lost."""
    shared = [3 + i * 7 % 90 for i in range(40)]
    async with swarm_of(make, *STAGES) as swarm:
        swarm.kept.least_shared = 16
        await soon(swarm.write(prompt=[*shared, 11], keep=True, max_new_tokens=8))
        expected = await soon(swarm.write(prompt=[*shared, 21, 22]))
        text = await soon(swarm.write(prompt=[*shared, 21, 22], keep=True))
        assert (text.token_ids, text.stats.cached_tokens) == (expected.token_ids, 0)
        assert len(swarm.kept) == 2
