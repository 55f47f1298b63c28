"""Honest peers differ by rounding alone; tests/client/test_liars.py has the liars."""

import pytest
import torch

from helpers.models import ARCHITECTURES
from swarm.audit.tolerance import FULL, HALF, HALF_EXPERTS, distances, has_experts, tolerance
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.model.work import Work

TOKENS = torch.arange(3, 90)


def test_distances_are_relative_and_symmetric() -> None:
    one, other = torch.randn(5, 8), torch.randn(5, 8).bfloat16()
    torch.testing.assert_close(distances(one, other), distances(other, one))
    torch.testing.assert_close(distances(3 * one, 3 * other.float()), distances(one, other))
    assert distances(one, one).tolist() == [0.0] * 5
    torch.testing.assert_close(distances(one, torch.zeros_like(one)), torch.ones(5))
    assert distances(torch.zeros(2, 8), torch.zeros(2, 8)).tolist() == [0.0, 0.0]


def test_what_is_everywhere_and_what_is_large_is_out_of_tolerance() -> None:
    quiet = torch.full((64,), FULL.median / 10)
    assert FULL.holds(quiet)
    assert FULL.holds(quiet[:0])
    assert not FULL.holds(quiet + FULL.median)
    for wrong in (1.0, float("nan"), float("inf")):
        once = quiet.clone()
        once[7] = wrong
        assert not FULL.holds(once)
        assert HALF_EXPERTS.holds(once), "one token may have gone to another expert"
        assert not HALF_EXPERTS.holds(torch.full((64,), wrong))


def test_the_roughest_dtype_decides() -> None:
    assert tolerance({"float32"}, False) is FULL
    assert tolerance({"float32", "bfloat16"}, False) is HALF
    assert tolerance({"float16"}, True) is HALF_EXPERTS


DENSE, EXPERTS = (
    ["llama", "gemma2", "cohere2", "gpt_neox"],
    ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"],
)


@pytest.mark.parametrize("name", [*DENSE, *EXPERTS])
def test_honest_spans_agree_in_all_shapes_and_dtypes(name: str, tmp_path) -> None:
    """With random weights, which are harder on rounding than trained ones."""
    ARCHITECTURES[name].save(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    head, answers = Head.load(checkpoint), []
    assert has_experts(checkpoint.config) == (name in EXPERTS)
    for dtype in (torch.float32, torch.bfloat16):
        span = Span.load(checkpoint, 0, 4, dtype=dtype)
        for size in (1, 7, len(TOKENS)):
            cache = span.new_cache()
            rows = [span.forward([Work.behind(cache, frame)])[0] for frame in TOKENS.split(size)]
            answers.append((str(dtype).removeprefix("torch."), head.normed(torch.cat(rows))))
    for number, (one_dtype, one) in enumerate(answers):
        for other_dtype, other in answers[:number]:
            allowed = tolerance({one_dtype, other_dtype}, has_experts(checkpoint.config))
            assert allowed.holds(distances(one, other)), (one_dtype, other_dtype)
