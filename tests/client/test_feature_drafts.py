"""Drafts by a head that reads the target's hidden states: over real peers, and texts stay exact."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.feature_drafts import (
    HOT,
    PLAIN,
    SHORT_WINDOWS,
    Told,
    note_what_is_told,
    outputs_of_layers,
    with_draft,
    write,
)
from helpers.feature_heads import behind_the_last, beside_the_model, save_eagle, save_target
from helpers.loopback import eventually
from helpers.strikes import killing
from helpers.swarm_in_process import NEW, PROMPT, STAGES, Material, Swarm, swarm_of
from swarm.chain.session import ChainSession
from swarm.client import sequence
from swarm.decoding import calibration
from swarm.decoding.feature_book import FIRST_ANSWERED
from swarm.decoding.windows import Window
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.choice import load_any_draft
from swarm.model.heads.loading import FeatureDraft
from swarm.outputs import Generation

REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "window": {"depth": 1, "window": 4},
    "sampled": {"temperature": 0.7, "seed": 5},
    "hot": HOT,
    "hot window": {**HOT, "depth": 1, "window": 4},
    "along one line": {**HOT, "branches": 1},
    "with a lookup": {**HOT, "lookup": True},
    "penalty": {**HOT, "repetition_penalty": 1.3},
}


@pytest.fixture(autouse=True)
def _random_heads_may_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "ENOUGH", 10**9)


@pytest.fixture(scope="module")
def with_head(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Material:
    with_eagle = with_draft(material, save_eagle(tmp_path_factory.mktemp("head")))
    assert isinstance(with_eagle.models.draft, FeatureDraft)
    return with_eagle


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return note_what_is_told(monkeypatch)


@pytest.fixture(scope="module")
def outputs(material: Material) -> Callable[[tuple[int, ...]], Tensor]:
    """Return the raw outputs ``[n, hidden]`` of the whole target's last layer."""
    run = outputs_of_layers(material)
    return lambda tokens: run(tokens)[:, -1]


async def test_texts_are_those_of_plain_decoding(with_head: Material) -> None:
    async with swarm_of(lambda: Swarm(with_head), *STAGES) as swarm:
        texts: dict[tuple[Any, ...], Generation] = {}  # of plain decoding
        for name, options in REQUESTS.items():
            sampling = {
                key: options[key]
                for key in ("temperature", "seed", "repetition_penalty")
                if key in options
            }
            kind = tuple(sampling.items())
            plain = texts[kind] = texts.get(kind) or await write(swarm, **sampling, **PLAIN)
            text = await write(swarm, **options)
            assert text.token_ids == plain.token_ids, name
            assert text.stats.draft_error is None
            assert text.stats.drafted_tokens > 0, name
            if options.get("temperature", 0.0) > 1:
                # Without a window, how much is drafted in time depends on the clock.
                assert text.stats.accepted_tokens > (NEW / 4 if "window" in options else 0), name


@pytest.mark.parametrize("tensors", [behind_the_last(4), beside_the_model()], ids=["GLM", "Qwen"])
async def test_texts_stay_exact_with_the_layer_inside_the_target_s_own_checkpoint(
    tensors: dict[str, Tensor], material: Material, tmp_path: Path
) -> None:
    own = Checkpoint.open(str(save_target(tmp_path / "target", tensors)))
    options = ComputeOptions(device="cpu", draft_dtype="float32")
    draft = load_any_draft("mtp", own, material.models.tokenizer, options)
    with_layer = replace(material, models=replace(material.models, draft=draft))
    async with swarm_of(lambda: Swarm(with_layer), *STAGES) as swarm:
        for sampling, way in (({}, {}), (HOT, {}), (HOT, {"depth": 1, "window": 4})):
            plain = await write(swarm, **sampling, **PLAIN)
            text = await write(swarm, **sampling, **way)
            assert text.token_ids == plain.token_ids
            assert text.stats.draft_error is None
    assert text.stats.accepted_tokens > NEW / 4


async def test_the_drafter_gets_every_answer_once_and_as_it_came(
    with_head: Material, told: Told, outputs: Callable[[tuple[int, ...]], Tensor]
) -> None:
    async with swarm_of(lambda: Swarm(with_head), *STAGES) as swarm:
        text = await write(swarm, **SHORT_WINDOWS)
    whole = outputs((*PROMPT, *text.token_ids))
    for before, feature in told.features:
        line = (*before, *feature.path)
        row = outputs(line)[-1] if feature.path else whole[feature.position]
        torch.testing.assert_close(feature.output, row, rtol=1e-3, atol=1e-4)
        assert feature.position < len(line)
    assert told.positions == list(range(FIRST_ANSWERED, told.positions[-1] + 1))
    assert told.positions[-1] > len(PROMPT) + NEW / 2


async def test_of_a_long_prompt_the_end_is_answered_chunk_by_chunk(
    with_head: Material, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence, "MAX_FRAME_TOKENS", 16)
    draft = with_head.models.draft
    assert isinstance(draft, FeatureDraft)
    models = replace(with_head.models, draft=replace(draft, prompt_features=40))
    prompt = [3 + i * 7 % 90 for i in range(100)]
    async with swarm_of(lambda: Swarm(replace(with_head, models=models)), *STAGES) as swarm:
        plain = await write(swarm, prompt=prompt, **HOT, **PLAIN)
        told.features.clear()
        text = await write(swarm, prompt=prompt, **HOT)
    assert text.token_ids == plain.token_ids
    assert told.positions[:40] == list(range(60, 100))


async def test_a_text_that_goes_on_knows_the_answers_of_the_one_before(
    with_head: Material, told: Told, outputs: Callable[[tuple[int, ...]], Tensor]
) -> None:
    async with swarm_of(lambda: Swarm(with_head), *STAGES) as swarm:
        first = await write(swarm, **HOT, keep=True)
        prompt = [*PROMPT, *first.token_ids, 11, 12, 13]
        plain = await write(swarm, prompt=prompt, **HOT, **PLAIN)
        told.features.clear()
        second = await write(swarm, prompt=prompt, **HOT, keep=True)
    assert second.token_ids == plain.token_ids
    assert second.stats.cached_tokens > 0
    assert told.positions[: len(prompt) - 1] == list(range(FIRST_ANSWERED, len(prompt)))
    whole = outputs((*prompt, *second.token_ids))
    for _, feature in told.features:
        if not feature.path:
            expected = whole[feature.position]
            torch.testing.assert_close(feature.output, expected, rtol=1e-3, atol=1e-4)


async def test_of_a_fork_the_drafter_gets_as_much_as_of_any_text(
    with_head: Material, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last positions of the prompt are read again where no answers of them are kept."""
    draft = with_head.models.draft
    assert isinstance(draft, FeatureDraft)
    models = replace(with_head.models, draft=replace(draft, prompt_features=30))
    shared = [3 + i * 7 % 90 for i in range(60)]
    prompt = [*shared, 21, 22]
    async with swarm_of(lambda: Swarm(replace(with_head, models=models)), *STAGES) as swarm:
        swarm.kept.least_shared = 16
        await write(swarm, prompt=[*shared, 11], **HOT, keep=True)
        plain = await write(swarm, prompt=prompt, **HOT, **PLAIN)
        told.features.clear()
        text = await write(swarm, prompt=prompt, **HOT, keep=True)
    assert text.token_ids == plain.token_ids
    assert text.stats.cached_tokens == len(prompt) - 30
    assert told.positions[:30] == list(range(len(prompt) - 30, len(prompt)))


async def test_an_audit_asks_for_the_same_answers_as_the_text_that_it_checks(
    with_head: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a peer could be honest to audits alone."""
    asked: dict[bytes, list[tuple[int, int]]] = {}
    send = ChainSession.send

    async def note(self: ChainSession, window: Window) -> None:
        if window.position < len(prompt):
            asked.setdefault(self.protocol.id, []).append((window.position, window.tail))
        await send(self, window)

    monkeypatch.setattr(ChainSession, "send", note)
    prompt = [5, 6, 7, 8, 9] * 4
    async with swarm_of(lambda: Swarm(with_head), *STAGES, *STAGES) as swarm:
        async with swarm.audits() as auditor:
            await write(swarm, prompt=prompt, **HOT)
            await eventually(lambda: auditor.audits.texts == 1)
        assert auditor.audits.disagreements == 0
    (text, *audits) = asked.values()
    assert text == [(0, len(prompt) - FIRST_ANSWERED)]
    assert all(audit == text for audit in audits)


@pytest.mark.parametrize("stages", [(0,), (2,), (0, 1, 2)])
async def test_whatever_fails_texts_and_answers_stay_the_same(
    stages: tuple[int, ...],
    with_head: Material,
    told: Told,
    outputs: Callable[[tuple[int, ...]], Tensor],
) -> None:
    async with swarm_of(lambda: Swarm(with_head), *STAGES, *STAGES) as swarm:
        plain = await write(swarm, **HOT, **PLAIN)
        text = await write(swarm, strike=killing(*stages), **HOT)
    assert text.token_ids == plain.token_ids
    whole = outputs((*PROMPT, *text.token_ids))
    for _, feature in told.features:
        if not feature.path:
            expected = whole[feature.position]
            torch.testing.assert_close(feature.output, expected, rtol=1e-3, atol=1e-4)
    assert sorted(set(told.positions)) == list(range(FIRST_ANSWERED, max(told.positions) + 1))
