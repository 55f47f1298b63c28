"""Block heads load as they are published, and draft what plain torch makes of their tensors, along
trees and behind tokens that are in flight."""

from pathlib import Path

import pytest

from helpers.feature_heads import target_tensors
from helpers.tapping_heads import (
    BLOCK,
    OUTPUTS,
    TAPS,
    TEXT,
    BlockReference,
    close,
    features,
    load,
    save_dflash,
    save_dspark,
    save_speculators_dspark,
)
from helpers.watching import Watching
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.errors import UnsupportedModel

BLOCKS = {
    "DFlash": (save_dflash, {}, False),
    "DFlash, causal": (save_dflash, {"causal": True}, False),
    "DSpark": (save_dspark, {}, True),
    "speculators' DSpark": (save_speculators_dspark, {}, True),
}


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


def test_a_watch_is_told_of_a_block_head_s_forwards(target: Path, tmp_path: Path) -> None:
    save_dspark(tmp_path / "head")
    draft = load(tmp_path / "head", target)
    watch = Watching()
    draft.watch(watch)
    drafter = draft.drafter(Sampling(), NO_SHAPING, frozenset())
    drafter.answered(TEXT, features(len(TEXT) - 2))
    assert len(drafter.draft_each(TEXT, [()], BLOCK)[0]) == BLOCK - 1
    assert watch.told == ["begins", "ends"]


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


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"target_layer_ids": [0, 3]}, "does not read 2 outputs"),
        ({"target_layer_ids": [-1, 0, 3]}, "reads the layers"),
        ({"selector_rank": 64}, "selector_rank is not known"),
        ({"mask_token_id": 5000}, "its mask is the token 5000"),
    ],
)
def test_what_does_not_fit_is_said(
    settings: dict[str, object], why: str, target: Path, tmp_path: Path
) -> None:
    save_dflash(tmp_path / "head", **settings)
    with pytest.raises(UnsupportedModel, match=why):
        load(tmp_path / "head", target)
