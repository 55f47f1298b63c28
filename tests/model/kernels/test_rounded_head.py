"""Every exact logit lies within its bounds; and choices by bounds are those of exact logits."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers.models import ARCHITECTURES, UNSUPPORTED
from swarm.client.judging import ROWS_AT_ONCE, judge
from swarm.decoding.certificate import Choosing
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.kernels.int8 import PACKS, Pack, Plain
from swarm.model.kernels.rounded_head import RoundedHead
from swarm.model.lm_head import Finish


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    hidden=st.sampled_from([7, 64, 577]),
    outlier=st.sampled_from([1.0, 50.0, 1e6]),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e15]),
    with_bias=st.booleans(),
)
def test_exact_logits_are_within_their_bounds(seed, hidden, outlier, size, with_bias):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(50, hidden, generator=generator)
    weight[:, 0] *= outlier
    weight[7] = 0.0
    weight[8] *= 1e-20
    weight[9] = weight[10]
    bias = torch.randn(50, generator=generator) * size if with_bias else None
    entered = torch.randn(4, hidden, generator=generator) * size
    entered[1, -1] *= outlier
    entered[2] = 0.0
    rounded = RoundedHead(weight, bias, Plain)
    lower, upper = rounded.bounds(entered)
    exact = entered.double() @ weight.double().t()
    if bias is not None:
        exact += bias
    assert ((lower.double() <= exact) & (exact <= upper.double())).all()
    rows, tokens = torch.ones(4, 50).nonzero(as_tuple=True)
    computed = rounded.exact(entered, rows, tokens).view(4, 50)
    torch.testing.assert_close(computed.double(), exact, rtol=2e-7, atol=1e-10 * size)
    assert ((lower <= computed) & (computed <= upper)).all()
    assert torch.equal(computed[:, 9], computed[:, 10]) or with_bias
    # The exact logits do not depend on what else is computed.
    assert torch.equal(rounded.exact(entered, rows[60:63], tokens[60:63]), computed[1, 10:13])
    # Narrow enough to be of use: the weights' own rounding, and little more.
    if outlier == 1.0 and size > 1e-9 and bias is None:
        product = entered[0].norm() * weight.norm(dim=1).mean()
        assert (upper - lower)[0].mean() < 0.05 * product


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in UNSUPPORTED])
def test_choices_are_those_of_the_whole_head(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    for pack in PACKS:
        _check_choices(Head.load(checkpoint), pack, checkpoint.hidden_size)


def _check_choices(head: Head, pack: Pack, hidden_size: int) -> None:
    rows = ROWS_AT_ONCE + 3
    torch.manual_seed(2)
    hidden = 3 * torch.randn(rows, hidden_size)
    before = head.logits(hidden)
    head.round(pack)
    assert head.rounded is not None
    assert torch.equal(head.logits(hidden), before)
    bounds, refine = head.bounds(hidden.bfloat16())
    exact = head.logits(hidden.bfloat16())
    assert ((bounds.lower <= exact + 1e-5) & (exact <= bounds.upper + 1e-5)).all()
    places, tokens = torch.ones_like(exact).nonzero(as_tuple=True)
    torch.testing.assert_close(refine(places, tokens).view_as(exact), exact, rtol=1e-5, atol=1e-5)
    paths = tuple((i, 5) for i in range(rows))
    for sampling in (Sampling(), Sampling(0.7, seed=1), Sampling(1.0, 20, 0.9, seed=2)):
        for shaping in (NO_SHAPING, Shaping(1.3, ((3, 1.0), (9, -100.0)))):
            choosing = Choosing(sampling, shaping, (1, 2, 5), paths)
            judged = judge(head, hidden, choosing, normed=True)
            expected = choosing.choose(before)
            for choice, row, right, exactly in zip(
                judged.choices, judged.logits, expected, before, strict=True
            ):
                if choice is None:
                    assert row is not None
                    torch.testing.assert_close(row, exactly, rtol=1e-5, atol=1e-5)
                else:
                    assert (choice, row) == (right, None)
            assert judged.normed is not None
            assert torch.equal(judged.normed, head.normed(hidden))
            if not sampling.top_k:
                assert None not in judged.choices


def test_where_logits_are_needed_they_are_those_of_the_head(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")))
    hidden = torch.randn(3, 32)
    head.round(Plain)
    judged = judge(head, hidden, None)
    assert torch.equal(
        torch.stack([row for row in judged.logits if row is not None]), head.logits(hidden)
    )
    assert judged.choices == (None,) * 3


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 3e38])
def test_what_is_no_answer_is_judged_by_the_whole_head(wrong: float, tmp_path: Path) -> None:
    """The guard refuses such answers before; bounds of them are worth nothing."""
    ARCHITECTURES["llama"].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")))
    head.round(Plain)
    hidden = torch.randn(2, 32)
    hidden[1, 4] = wrong
    choosing = Choosing(Sampling(), NO_SHAPING, (1,), ((), (2,)))
    first, second = judge(head, hidden, choosing).choices
    assert first is not None
    logits = head.logits(hidden)
    assert second == (choosing.choose(logits)[1] if logits[1].isfinite().all() else None)


def test_a_small_head_has_no_copy(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")))
    head.round()
    assert head.rounded is None


FINISHES = {
    "nothing": (lambda logits: logits, True),
    "a cap": (lambda logits: 30 * torch.tanh(logits / 30), True),
    "a scale": (lambda logits: logits / 7, True),
    "a shift": (lambda logits: logits + 3, True),
    "the other way round": (lambda logits: -logits, False),
    "a wave": (lambda logits: logits + 20 * torch.sin(logits), False),
    "relative to the others": (lambda logits: logits.log_softmax(dim=-1), False),
    "in another order": (lambda logits: logits.roll(1, dims=-1), False),
    "some for themselves": (lambda logits: logits + torch.arange(logits.shape[-1]) % 3, False),
    "fewer": (lambda logits: logits[:, :-1], False),
    "no numbers": (lambda logits: logits.log(), False),
}


@pytest.mark.parametrize("name", FINISHES)
def test_only_increasing_functions_of_each_logit_are_allowed_behind_the_head(name: str) -> None:
    run, usable = FINISHES[name]
    assert Finish(run, 1000).usable is usable


def test_bounds_hold_behind_a_cap() -> None:
    finish = Finish(FINISHES["a cap"][0], 1000)
    logits = 20 * torch.randn(3, 1000, generator=torch.Generator().manual_seed(1))
    lower, upper = finish.bounds(logits, logits)
    exact: Tensor = finish.of(logits.double())
    assert ((lower < exact) & (exact < upper)).all()
    assert (upper - lower).max() < 1e-3


def test_a_copy_that_does_not_hold_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")))

    class Doubling(Plain):
        def __call__(self, factors: Tensor) -> Tensor:
            return 2 * super().__call__(factors)

    head.round(Doubling)
    assert head.rounded is None
    assert isinstance(head.logits(torch.randn(1, 32)), Tensor)


def test_a_head_that_is_no_plain_linear_layer_has_no_copy(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")))

    class Other(nn.Linear):
        pass

    head._model.lm_head.__class__ = Other
    head.round(Plain)
    assert head.rounded is None
