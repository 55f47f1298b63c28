"""EAGLE-3 heads load as they are published, and draft what plain torch makes of their tensors."""

from pathlib import Path

import pytest

from helpers.feature_heads import target_tensors
from helpers.tapping_heads import (
    OUTPUTS,
    TAPS,
    TEXT,
    Eagle3Reference,
    close,
    eagle3_names,
    features,
    load,
    save_specforge,
    save_speculators,
)
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.errors import UnsupportedModel
from swarm.model.heads.eagle3 import tapped_layers

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
    ],
)
def test_what_does_not_fit_is_said(
    save: object, settings: dict[str, object], why: str, target: Path, tmp_path: Path
) -> None:
    save(tmp_path / "head", **settings)  # type: ignore[operator]
    with pytest.raises(UnsupportedModel, match=why):
        load(tmp_path / "head", target)
