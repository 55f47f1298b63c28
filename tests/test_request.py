"""Impossible requests are refused before anything is sent."""

from types import SimpleNamespace

import pytest
import torch

from swarm.decoding.drafting.choices import CHOICES
from swarm.decoding.policy import MAX_DEPTH, SpeculationPlan
from swarm.decoding.streaming import IDLE_CHANCE, STREAM_BRANCHES, STREAM_LEAVES, STREAM_WINDOW
from swarm.errors import PromptTooLong, RequestError, SamplingError
from swarm.request import MAX_LOGPROBS, MAX_STOP_TOKENS, MAX_WINDOW, Request
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.tensors import MAX_FRAME_TOKENS


def checkpoint(vocab_size=100, max_positions=50):
    return SimpleNamespace(
        vocab_size=vocab_size, max_positions=max_positions, eos_token_ids=frozenset({100})
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_new_tokens", wrong) for wrong in (0, -5)],
        *[("window", wrong) for wrong in (-1, MAX_WINDOW + 1)],
        *[("depth", wrong) for wrong in (0, MAX_DEPTH + 1)],
        *[("branches", wrong) for wrong in (0, CHOICES + 1)],
        *[("logprobs", wrong) for wrong in (-1, MAX_LOGPROBS + 1)],
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(RequestError, match=f"^{name} = {value} is not possible; give ") as caught:
        Request(**{name: value})
    assert (caught.value.name, caught.value.value) == (name, value)


def test_the_widest_window_fits_a_frame():
    request = Request(max_new_tokens=1, window=MAX_WINDOW)
    assert request.policy().plan().window == MAX_WINDOW < MAX_FRAME_TOKENS


@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        ({"window": 0}, SpeculationPlan(reason="requested")),
        ({"window": 5, "depth": 1}, SpeculationPlan(5)),
        (
            {"window": 5, "depth": 3, "branches": 2},
            SpeculationPlan(5, 3, 2, STREAM_LEAVES, IDLE_CHANCE),
        ),
        (
            {},
            SpeculationPlan(STREAM_WINDOW, MAX_DEPTH, STREAM_BRANCHES, STREAM_LEAVES, IDLE_CHANCE),
        ),
    ],
)
def test_how_far_ahead_a_request_goes(changes, plan):
    request = Request(**changes)
    assert request.policy().plan() == plan
    assert bool(request.tokens_ahead) == (plan.branches > 1), "branches that are lost need room"


def test_a_prompt_that_just_fits_is_taken():
    Request(max_new_tokens=40).check_prompt([0, 99] * 5, checkpoint())


def test_an_empty_prompt_is_refused():
    with pytest.raises(RequestError, match="give a prompt of at least one token"):
        Request().check_prompt([], checkpoint())


@pytest.mark.parametrize("token", [-1, 100])
def test_a_token_outside_the_vocabulary_is_named(token):
    with pytest.raises(
        RequestError, match=f"^prompt token = {token} is not possible; give token ids from 0 to 99"
    ):
        Request().check_prompt([5, token], checkpoint())


def test_a_prompt_too_long_for_the_context_is_refused_with_the_numbers():
    with pytest.raises(PromptTooLong) as caught:
        Request(max_new_tokens=41).check_prompt([1] * 10, checkpoint())
    assert (caught.value.prompt_tokens, caught.value.new_tokens, caught.value.limit) == (10, 41, 50)
    assert "10 tokens and 41 new ones are asked for, but the model's context ends at 50" in str(
        caught.value
    )


@pytest.mark.parametrize("max_positions", [None, 2 * MAX_SESSION_TOKENS])
def test_without_a_limit_of_the_model_the_longest_session_is_the_limit(max_positions):
    model = checkpoint(max_positions=max_positions)
    Request(max_new_tokens=MAX_SESSION_TOKENS - 2).check_prompt([1, 2], model)
    with pytest.raises(PromptTooLong) as caught:
        Request(max_new_tokens=MAX_SESSION_TOKENS - 1).check_prompt([1, 2], model)
    assert caught.value.limit == MAX_SESSION_TOKENS


def test_nobody_stands_by_unless_asked_for():
    assert not Request.of({}).standby
    assert Request.of({"standby": True}).standby


def test_tokens_that_end_the_text_are_the_models_unless_others_are_named():
    model = SimpleNamespace(eos_token_ids=frozenset({2}))
    assert Request.of({}).stop_ids(model) == {2}
    assert Request.of({"stop_token_ids": [5, 6]}).stop_ids(model) == {5, 6}
    assert Request.of({"stop_token_ids": []}).stop_ids(model) == frozenset()
    with pytest.raises(
        RequestError, match=f"^stop_token_ids = .* give at most {MAX_STOP_TOKENS} tokens"
    ):
        Request.of({"stop_token_ids": range(MAX_STOP_TOKENS + 1)})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("logit_bias", {"logit_bias": {5: 1, 100: -1}}),
        ("stop_token_ids", {"stop_token_ids": [5, 101]}),
    ],
)
def test_a_token_that_the_model_does_not_have_is_named(name, options):
    with pytest.raises(
        RequestError, match=f"^{name} = 10[01] is not possible; give token ids from 0 to 99"
    ):
        Request.of(options).check_vocabulary(checkpoint())
    Request.of({"logit_bias": {99: 1}, "stop_token_ids": [0, 99]}).check_vocabulary(checkpoint())


def test_a_model_may_end_its_texts_with_a_token_that_it_does_not_have():
    """transformers allows it: such a configuration is odd, and harmless."""
    Request.of({"stop_token_ids": [2, 100]}).check_vocabulary(checkpoint())


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 50.0])
def test_a_top_p_of_nothing_is_the_likeliest_token(temperature):
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(3))
    logits[5] = 0.0  # of equals the first
    sampling = Request.of({"temperature": temperature, "top_p": 0, "seed": 9}).sampling
    assert sampling.choose(logits, 4) == logits.argmax(dim=-1).tolist()


def test_a_top_k_of_minus_one_is_all_tokens():
    assert Request.of({"top_k": -1, "seed": 9}) == Request.of({"seed": 9})
    with pytest.raises(SamplingError, match=r"^top_k = -2 is not possible"):
        Request.of({"top_k": -2})


def test_an_empty_stop_string_says_nothing():
    assert Request.of({"stop": ""}).stop == Request.of({"stop": [""]}).stop == ()
    assert Request.of({"stop": ["", "x"]}).stop == ("x",)
