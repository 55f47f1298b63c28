"""Chances by lag out of right and wrong drafts."""

from pathlib import Path

import pytest
import torch

from helpers.models import VOCAB, Architecture
from swarm.distill.report import ByLag, measure_draft
from swarm.distill.texts import TargetText


def test_chances_are_of_runs_in_which_all_before_was_right() -> None:
    right = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]).bool()
    counted = ByLag.of(right)
    assert counted.reached == (4, 3, 2, 1)
    assert counted.chances == (3 / 4, 2 / 3, 1 / 2)
    assert counted.run == pytest.approx((3 + 2 + 1) / 4)
    assert counted.alpha == pytest.approx(1.5 / 2.5)


def test_counts_add_up() -> None:
    assert (ByLag((4, 3, 2)) + ByLag((2, 1, 0))).reached == (6, 4, 2)


def test_nothing_measured_has_no_chances() -> None:
    assert ByLag((0, 0, 0)).chances == (0.0, 0.0)
    assert ByLag((0, 0, 0)).alpha == 0.0


def test_a_draft_reads_no_text_beyond_its_context(tmp_path: Path) -> None:
    Architecture("gpt2", {"max_position_embeddings": 16}).save(tmp_path)  # 16 learned positions
    text = TargetText(torch.arange(40), torch.zeros(40, 1), prompt=4)
    measured, weights = measure_draft(str(tmp_path), [text], lags=2, vocab=VOCAB)
    assert measured.reached[0] == 16 - 4 - 2
    assert weights > 0
