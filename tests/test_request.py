"""What cannot be generated is refused before anything is sent."""

from types import SimpleNamespace

import pytest

from swarm.decoding.drafting.model import CHOICES
from swarm.decoding.plan import MAX_DEPTH, Plan
from swarm.decoding.streaming import IDLE_CHANCE, STREAM_BRANCHES, STREAM_LEAVES, STREAM_WINDOW
from swarm.request import MAX_LOGPROBS, MAX_WINDOW, PromptTooLong, Request, RequestError
from swarm.wire.messages import MAX_SESSION_TOKENS
from swarm.wire.tensors import MAX_FRAME_TOKENS


def checkpoint(vocab_size=100, max_positions=50):
    return SimpleNamespace(vocab_size=vocab_size, max_positions=max_positions)


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
    assert request.control().plan().window == MAX_WINDOW < MAX_FRAME_TOKENS


@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        ({"window": 0}, Plan()),
        ({"window": 5, "depth": 1}, Plan(5)),
        ({"window": 5, "depth": 3, "branches": 2}, Plan(5, 3, 2, STREAM_LEAVES, IDLE_CHANCE)),
        ({}, Plan(STREAM_WINDOW, MAX_DEPTH, STREAM_BRANCHES, STREAM_LEAVES, IDLE_CHANCE)),
    ],
)
def test_how_far_ahead_a_request_goes(changes, plan):
    request = Request(**changes)
    assert request.control().plan() == plan
    assert bool(request.tokens_ahead) == (plan.branches > 1), "branches that are lost need room"


def test_a_prompt_that_just_fits_is_taken():
    Request(max_new_tokens=40).check_prompt([0, 99] * 5, checkpoint())


def test_an_empty_prompt_is_refused():
    with pytest.raises(RequestError, match="give a prompt of at least one token"):
        Request().check_prompt([], checkpoint())


@pytest.mark.parametrize("token", [-1, 100])
def test_a_token_outside_the_vocabulary_is_named(token):
    with pytest.raises(RequestError, match=f"^prompt token = {token} is not possible; give token ids from 0 to 99"):
        Request().check_prompt([5, token], checkpoint())


def test_a_prompt_too_long_for_the_context_is_refused_with_the_numbers():
    with pytest.raises(PromptTooLong) as caught:
        Request(max_new_tokens=41).check_prompt([1] * 10, checkpoint())
    assert (caught.value.prompt_tokens, caught.value.new_tokens, caught.value.limit) == (10, 41, 50)
    assert "10 tokens and 41 new ones are asked for, but the model's context ends at 50" in str(caught.value)


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
