"""Heads of every family draft nearly the same where their weights are stored in 8 bits."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers.feature_heads import (
    HIDDEN,
    behind_the_last,
    beside_the_model,
    save_eagle,
    save_target,
)
from helpers.tapping_heads import (
    PLAIN,
    TAPS,
    TEXT,
    save_dflash,
    save_dspark,
    save_specforge,
    save_speculators,
)
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.model.checkpoint import Checkpoint
from swarm.model.drafts.choice import load_any_draft

KNOWN = len(TEXT) - 1  # the target has answered up to the text's last token but one
OUTPUTS = torch.randn(KNOWN, len(TAPS), HIDDEN, generator=torch.Generator().manual_seed(3))

HEADS: dict[str, Callable[[Path], object]] = {
    "EAGLE": save_eagle,
    "EAGLE, two layers": partial(save_eagle, layers=2),
    "EAGLE-3": save_specforge,
    "EAGLE-3, normed residual": partial(save_speculators, norm_before_residual=True),
    "EAGLE-3.1": partial(save_speculators, fc_norm=True, norm_output=True),
    "DFlash": save_dflash,
    "DFlash, causal": partial(save_dflash, causal=True),
    "DSpark": save_dspark,
}
OWN_LAYERS = {"GLM": partial(behind_the_last, 4), "Qwen": beside_the_model}


def guess(name: str, target: Path, dtype: str) -> torch.Tensor:
    """What a head says of the token behind the text."""
    checkpoint = Checkpoint.open(str(target))
    options = replace(PLAIN, draft_dtype=dtype)
    draft = load_any_draft(name, checkpoint, checkpoint.tokenizer(), options)
    drafter = draft.drafter(Sampling(), NO_SHAPING, frozenset())
    outputs = OUTPUTS if drafter.taps else OUTPUTS[:, 0]
    drafter.answered(TEXT, [Feature(at, (), output) for at, output in enumerate(outputs)])
    [guessed] = drafter.draft(TEXT, 1)
    assert guessed.logits is not None
    return guessed.logits[guessed.logits.isfinite()]


def assert_nearly_the_same(name: str, target: Path) -> None:
    exact = guess(name, target, "float32")
    rounded = guess(name, target, "int8")
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 0.1


@pytest.mark.parametrize("kind", HEADS)
def test_published_heads(kind: str, target: Path, tmp_path: Path) -> None:
    HEADS[kind](tmp_path / "head")
    assert_nearly_the_same(str(tmp_path / "head"), target)


@pytest.mark.parametrize("kind", OWN_LAYERS)
def test_layers_of_the_target_s_own_checkpoint(kind: str, tmp_path: Path) -> None:
    assert_nearly_the_same("mtp", save_target(tmp_path / "target", OWN_LAYERS[kind]()))
