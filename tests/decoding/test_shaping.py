"""Penalties and biases are those of transformers, and drafted tokens count as history."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from swarm.decoding.shaping import MAX_BIASES, Shaping
from swarm.errors import SamplingError

VOCABULARY = 8
tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=6)


@settings(deadline=None)
@given(st.floats(0.1, 5), tokens.filter(bool), tokens, st.integers(0, 1000))
def test_the_repetition_penalty_is_that_of_transformers(penalty, history, path, seed):
    logits = torch.randn(len(path) + 1, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    shaped = Shaping(repetition_penalty=penalty).apply(logits, history, path)
    reference = RepetitionPenaltyLogitsProcessor(penalty)
    for i in range(len(path) + 1):
        ids = torch.tensor([[*history, *path[:i]]])
        assert torch.equal(shaped[i], reference(ids, logits[i : i + 1].clone())[0])


def test_biases_are_added_at_every_position():
    shaped = Shaping(logit_bias=((2, 1.5), (5, -100.0), (99, 3.0))).apply(
        torch.zeros(2, VOCABULARY), [1]
    )
    assert shaped.tolist() == [[0, 0, 1.5, 0, 0, -100, 0, 0]] * 2


def test_what_is_given_is_not_changed():
    logits = torch.ones(1, VOCABULARY)
    assert Shaping().apply(logits, [1]) is logits
    Shaping(2.0, ((1, 1.0),)).apply(logits, [1])
    assert logits.tolist() == [[1.0] * VOCABULARY]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"repetition_penalty": 0.0}, "repetition_penalty = 0.0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty = nan"),
        ({"logit_bias": ((-1, 1.0),)}, "logit_bias"),
        ({"logit_bias": ((1, float("inf")),)}, "logit_bias"),
        ({"logit_bias": ((1, float("nan")),)}, "logit_bias"),
        ({"logit_bias": ((1, 1.0),) * (MAX_BIASES + 1)}, "at most 1024"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(SamplingError, match=words):
        Shaping(**wrong)
