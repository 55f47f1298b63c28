"""A model that caches latents and chooses what it attends to, over real peers.

Token for token as undisturbed: with windows, branches and flushes, and while peers are killed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.loopback import soon
from helpers.models import ARCHITECTURES
from helpers.strikes import WAY_NAMES, WAYS, killing
from helpers.swarm_in_process import PROMPT, STAGES, Material, Swarm, greedy_text, swarm_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def material(folder: Path) -> Material:
    return Material.load(folder, architecture=ARCHITECTURES["deepseek_v32"])


@pytest.fixture(scope="module")
def expected(material: Material, folder: Path) -> tuple[int, ...]:
    """The text of transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder / "target", dtype=torch.float32)
    return greedy_text(model, PROMPT)


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
async def test_a_peer_that_dies_is_replaced(
    way: dict[str, Any], make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        assert all(peer.span.branches for peer in swarm.up)
        assert (await soon(swarm.write(**way))).token_ids == expected
        text = await soon(swarm.write(killing(1), **way))
        assert text.token_ids == expected
        assert len(text.stats.failovers) == 1


async def test_texts_that_begin_alike_share_what_was_read(make: Callable[[], Swarm]) -> None:
    """The latents and the indexer's keys are copied, and replayed to a peer that takes a place."""
    shared = [3 + i * 7 % 90 for i in range(40)]
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        swarm.kept.least_shared = 16
        await soon(swarm.write(prompt=[*shared, 11], keep=True, max_new_tokens=8))
        expected = await soon(swarm.write(prompt=[*shared, 21, 22]))
        text = await soon(swarm.write(killing(1), prompt=[*shared, 21, 22], keep=True))
        assert text.token_ids == expected.token_ids
        assert text.stats.cached_tokens == len(shared)
        assert len(text.stats.failovers) == 1
