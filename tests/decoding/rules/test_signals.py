"""The three signals, by hand and within their bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.decoding.rules.signals import agreement, entropy, entropy_contrast, top1_gap


def log(*probabilities):
    return torch.tensor(probabilities).log()


def test_entropy_in_nats():
    assert entropy(log(0.5, 0.5)) == pytest.approx(math.log(2))
    assert entropy(log(1.0, 0.0, 0.0)) == 0.0  # the logarithm of 0 does not become a NaN


def test_contrast_is_above_zero_where_the_target_is_surer():
    assert entropy_contrast(log(1.0, 0.0), log(0.5, 0.5)) == pytest.approx(math.log(2))
    assert entropy_contrast(log(0.5, 0.5), log(1.0, 0.0)) == pytest.approx(-math.log(2))


def test_the_gap_is_between_the_best_two():
    assert top1_gap(log(0.2, 0.5, 0.3)) == pytest.approx(0.2)
    assert top1_gap(log(1.0)) == 1.0


def test_agreement_is_the_mass_in_common():
    assert agreement(log(0.2, 0.5, 0.3), log(0.6, 0.4, 0.0)) == pytest.approx(0.6)
    assert agreement(log(1.0, 0.0), log(0.0, 1.0)) == 0.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=2, max_size=8))
def test_bounds(pairs):
    p, q = (torch.tensor(column).log_softmax(-1) for column in zip(*pairs, strict=True))
    most = math.log(len(pairs)) + 1e-4
    assert -1e-4 <= entropy(p) <= most
    assert -most <= entropy_contrast(p, q) <= most
    assert -1e-6 <= top1_gap(p) <= 1 + 1e-6
    assert -1e-6 <= agreement(p, q) <= 1 + 1e-5
    assert agreement(p, p) == pytest.approx(1.0, abs=1e-4)
