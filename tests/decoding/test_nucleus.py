"""What bounds of a row tell of top k, top p and min p holds for every row between them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swarm.decoding import nucleus as nuclei
from swarm.decoding.nucleus import MASS_SLACK, Nucleus
from swarm.decoding.sampling import Sampling

VOCABULARY = 12
ROWS = 20
SAMPLINGS = [
    Sampling(1.0, top_k, top_p, min_p=min_p)
    for top_k in (0, 1, 4)
    for top_p in (1.0, 0.0, 0.5, 0.95)
    for min_p in (0.0, 0.1)
]


def bounds(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a row, relative to its best, and bounds that tell half of it exactly."""
    generator = torch.Generator().manual_seed(seed)
    row = 2.0 * torch.randn(VOCABULARY, generator=generator)
    row -= row.max()
    known = torch.rand(VOCABULARY, generator=generator) < 0.5
    known[row.argmax()] = True
    slack = torch.rand(2, VOCABULARY, generator=generator).masked_fill_(known, 0.0)
    return row - slack[0], row, torch.minimum(row + slack[1], torch.zeros(()))


def kept(row: Tensor, sampling: Sampling) -> list[bool]:
    return sampling.restricted(row[None].clone())[0].isfinite().tolist()


@pytest.mark.parametrize("edge_tokens", [2, 1024])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_what_is_told_holds_for_the_row(
    sampling: Sampling, edge_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nuclei, "EDGE_TOKENS", edge_tokens)
    for seed in range(ROWS):
        lower, row, upper = bounds(seed)
        nucleus = Nucleus(lower, upper, sampling)
        for token, is_kept in enumerate(kept(row, sampling)):
            assert nucleus.possible[token] or not is_kept
            if lower[token] == upper[token]:
                assert nucleus.keeps(token) in (None, is_kept)


@pytest.mark.parametrize("edge_tokens", [2, 1024])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_of_a_row_that_is_known_exactly_only_the_edge_is_left_open(
    sampling: Sampling, edge_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nuclei, "EDGE_TOKENS", edge_tokens)
    for seed in range(ROWS):
        _, row, _ = bounds(seed)
        nucleus = Nucleus(row, row, sampling)
        shares = replace(sampling, top_p=1.0, min_p=0.0).probabilities(row)
        for token, is_kept in enumerate(kept(row, sampling)):
            mass_before = float(shares[row > row[token]].sum())
            if abs(mass_before - sampling.top_p) > 2 * MASS_SLACK:
                assert nucleus.keeps(token) is is_kept
                assert nucleus.possible[token] == is_kept or edge_tokens < VOCABULARY


def told(sampling: Sampling, *ranges: tuple[float, float]) -> list[bool | None]:
    """Return whether each token is kept, whose shares of the best one's mass lie in ranges."""
    lower, upper = torch.tensor(ranges).log().unbind(1)
    nucleus = Nucleus(lower, upper, sampling)
    known = (lower == upper).tolist()
    return [nucleus.keeps(token) if known[token] else None for token in range(len(ranges))]


def test_top_k_leaves_open_what_others_may_overtake() -> None:
    sampling = Sampling(1.0, top_k=2)
    assert told(sampling, (1.0, 1.0), (0.5, 0.5), (0.1, 0.6), (0.2, 0.2)) == [
        True,
        None,
        None,
        False,
    ]
    assert told(sampling, (1.0, 1.0), (0.5, 0.5), (0.1, 0.4), (0.2, 0.2))[1] is True
    both = replace(sampling, top_p=0.9)
    assert told(both, (1.0, 1.0), (0.5, 0.5), (0.1, 0.6), (0.2, 0.2))[1] is None


def test_top_p_leaves_open_what_the_unknown_mass_decides() -> None:
    """Before the second token stands 1 of 1.5, or of up to 1.9."""
    ranges = ((1.0, 1.0), (0.5, 0.5), (0.0, 0.4))
    assert told(Sampling(1.0, top_p=0.5), *ranges)[:2] == [True, False]
    assert told(Sampling(1.0, top_p=0.6), *ranges)[:2] == [True, None]
    assert told(Sampling(1.0, top_p=0.7), *ranges)[:2] == [True, True]


def test_the_likeliest_token_is_kept_whatever_top_p_is() -> None:
    assert told(Sampling(1.0, top_p=0.0), (1.0, 1.0), (0.9, 0.9)) == [True, False]


def test_what_is_too_near_to_the_edge_is_not_told() -> None:
    ranges = ((1.0, 1.0), (1.0 / 3.0, 1.0 / 3.0))
    assert told(Sampling(1.0, top_p=0.75), *ranges) == [True, None]


def test_of_tokens_that_are_equally_likely_it_is_not_told_which_one_comes_first() -> None:
    ranges = ((1.0, 1.0), (0.5, 0.5), (0.5, 0.5))
    assert told(Sampling(1.0, top_p=0.6), *ranges) == [True, None, None]
    assert told(Sampling(1.0, top_p=0.8), *ranges) == [True, True, True]
