"""Heads that read several layers load as they are published, and draft what plain torch makes of
their tensors: along trees, and behind tokens that are in flight."""

from pathlib import Path

import pytest
import torch

from helpers.feature_heads import HIDDEN, save_target, target_tensors
from helpers.tapping_heads import (
    BLOCK,
    TAPS,
    BlockReference,
    Eagle3Reference,
    eagle3_names,
    save_dflash,
    save_dspark,
    save_specforge,
    save_speculators,
    save_speculators_dspark,
)
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.errors import UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.choice import Draft, load_any_draft
from swarm.model.heads.eagle3 import tapped_layers

PLAIN = ComputeOptions(device="cpu", draft_dtype="float32")
TEXT = [5, 9, 40, 7, 33, 21]
OUTPUTS = list(torch.randn(8, len(TAPS), HIDDEN, generator=torch.Generator().manual_seed(3)))

EAGLE3 = {
    "SpecForge": (save_specforge, {}, {"layer": "midlayer."}),
    "SpecForge, whole vocabulary": (save_specforge, {"whole": True}, {"layer": "midlayer."}),
    "speculators": (save_speculators, {}, {"layer": "layers.0."}),
    "speculators, normed residual": (
        save_speculators,
        {"norm_before_residual": True},
        {"layer": "layers.0.", "normed_residual": True},
    ),
    "speculators, normed outputs": (
        save_speculators,
        {"norm_before_fc": True},
        {"layer": "layers.0."},
    ),
    "EAGLE-3.1": (
        save_speculators,
        {"fc_norm": True, "norm_output": True},
        {"layer": "layers.0."},
    ),
}
BLOCKS = {
    "DFlash": (save_dflash, {}, False),
    "DFlash, causal": (save_dflash, {"causal": True}, False),
    "DSpark": (save_dspark, {}, True),
    "speculators' DSpark": (save_speculators_dspark, {}, True),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target"))


def load(name: Path, target: Path) -> Draft:
    checkpoint = Checkpoint.open(str(target))
    return load_any_draft(str(name), checkpoint, checkpoint.tokenizer(), PLAIN)


def features(count: int) -> list[Feature]:
    return [Feature(at, (), output) for at, output in enumerate(OUTPUTS[:count])]


def close(guess: Drafted, expected: torch.Tensor) -> bool:
    assert guess.logits is not None
    assert guess.logits.isfinite().equal(expected.isfinite())
    told = expected.isfinite()
    error = (guess.logits[told] - expected[told]).norm() / expected[told].norm()
    return float(error) < 1e-4


@pytest.mark.parametrize("variant", EAGLE3)
def test_eagle3_heads_draft_as_they_are_published(
    variant: str, target: Path, tmp_path: Path
) -> None:
    save, settings, of_reference = EAGLE3[variant]
    save(tmp_path / "head", **settings)
    draft = load(tmp_path / "head", target)
    drafter = draft.drafter(Sampling(), NO_SHAPING, frozenset())
    assert drafter.taps == TAPS
    names = eagle3_names(bool(settings.get("norm_output")))
    tensors = target_tensors(target), target_tensors(tmp_path / "head")
    reference = Eagle3Reference(names, *tensors, **of_reference)
    # the target is known up to the text's last token but one, then two tokens further
    known = len(TEXT) - 1
    drafter.answered(TEXT, features(known))
    paths = [(), (8,), (8, 11), (12,), (8, 11, 30)]
    lines = [(*TEXT, *path) for path in paths]
    expected = reference.read(OUTPUTS[:known], *lines)
    guesses = drafter.draft_each(TEXT, paths, 1)
    assert all(close(guess, row) for [guess], row in zip(guesses, expected, strict=True))
    text = [*TEXT, 8, 11]
    drafter.answered(text, [Feature(at, (), OUTPUTS[at]) for at in (known, known + 1)])
    expected = reference.read(OUTPUTS[: known + 2], lines[2], lines[4])
    guesses = drafter.draft_each(text, [(), (30,)], 1)
    assert all(close(guess, row) for [guess], row in zip(guesses, expected, strict=True))


@pytest.mark.parametrize("variant", BLOCKS)
def test_block_heads_draft_as_they_are_published(
    variant: str, target: Path, tmp_path: Path
) -> None:
    save, settings, from_anchor = BLOCKS[variant]
    save(tmp_path / "head", **settings)
    drafter = load(tmp_path / "head", target).drafter(Sampling(), NO_SHAPING, frozenset())
    assert drafter.taps == TAPS
    tensors = target_tensors(target), target_tensors(tmp_path / "head")
    reference = BlockReference(*tensors, from_anchor, bool(settings))
    known = len(TEXT) - 2  # the last two tokens are in flight, or just decided
    drafter.answered(TEXT, features(known))
    paths: list[tuple[int, ...]] = [(), (8,), (12, 3), (8, 11, 30), (1, 2, 3, 4)]
    guesses = drafter.draft_each(TEXT, paths, 1)
    for path, guess in zip(paths, guesses, strict=True):
        unanswered = 2 + len(path)
        if unanswered + (not from_anchor) > BLOCK:
            assert not guess, "a block has no room for it"
            continue
        line = (*TEXT, *path)
        assert close(guess[0], reference.read(OUTPUTS[:known], line))
    # one pass predicts the rest of its block, each token behind the one before it
    [several] = drafter.draft_each(TEXT, [()], BLOCK)
    assert len(several) == BLOCK - 2 + from_anchor
    assert several[0].token == guesses[0][0].token


def test_outputs_at_drafted_tokens_count_when_these_are_committed(
    target: Path, tmp_path: Path
) -> None:
    save_dspark(tmp_path / "head")
    drafter = load(tmp_path / "head", target).drafter(Sampling(), NO_SHAPING, frozenset())
    reference = BlockReference(target_tensors(target), target_tensors(tmp_path / "head"), True)
    drafter.answered(TEXT, features(len(TEXT)))
    ahead = [Feature(len(TEXT), path, OUTPUTS[at]) for path, at in (((8,), 6), ((9,), 7))]
    drafter.answered(TEXT, ahead)
    text = [*TEXT, 8, 4]
    drafter.answered(text, [])
    [[guess]] = drafter.draft_each(text, [()], 1)
    assert close(guess, reference.read(OUTPUTS[:7], tuple(text)))
    # another text begins anew
    assert drafter.draft_each([3, 4, 5], [()], 1) == [[]]


def test_publishers_count_layers_in_their_own_ways() -> None:
    sglang = {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 29, 57]}}
    vllm = {"eagle_aux_hidden_state_layer_ids": [2, 30, 58]}
    assert tapped_layers(sglang, 61) == tapped_layers(vllm, 61) == (1, 29, 57)
    assert tapped_layers({}, 32) == (1, 15, 28)
    for wrong in ([0, 1, 2], [3, 2, 1], [1, 2, 99]):
        with pytest.raises(ValueError, match="reads the layers"):
            tapped_layers({"eagle_aux_hidden_state_layer_ids": wrong}, 32)


@pytest.mark.parametrize(
    ("save", "settings", "why"),
    [
        (save_specforge, {"layers": (0, 1, 4)}, r"reads the layers \[0, 1, 4\]"),
        (save_specforge, {"layers": (0, 1)}, "do not fit its weights"),
        (save_speculators, {"parallel_drafting": True}, "drafts in parallel"),
        (save_dflash, {"target_layer_ids": [0, 3]}, "does not read 2 outputs"),
        (save_dflash, {"target_layer_ids": [-1, 0, 3]}, "reads the layers"),
        (save_dflash, {"selector_rank": 64}, "selector_rank is not known"),
        (save_dflash, {"mask_token_id": 5000}, "its mask is the token 5000"),
    ],
)
def test_what_does_not_fit_is_said(
    save: object, settings: dict[str, object], why: str, target: Path, tmp_path: Path
) -> None:
    save(tmp_path / "head", **settings)  # type: ignore[operator]
    with pytest.raises(UnsupportedModel, match=why):
        load(tmp_path / "head", target)
