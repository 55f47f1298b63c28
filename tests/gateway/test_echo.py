"""Texts with their prompt: what lm-eval asks for."""

import pytest

from helpers.gateway_in_process import PROBLEM
from swarm.demo import TARGET

ASKED = {"model": TARGET, "temperature": 0, "logprobs": 2, "echo": True}


async def test_a_text_that_was_written_has_the_scores_that_it_was_written_with(served):
    """A text scored as a prompt has the log probabilities of its generation."""
    tokenizer = served.swarm._models.tokenizer
    ids = tokenizer(PROBLEM.prompt).input_ids
    body = {**ASKED, "prompt": ids, "max_tokens": 12, "explain": True}
    status, _, written = await served.post("/v1/completions", body)
    assert status == 200
    (choice,) = written["choices"]
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == len(ids) + 12
    assert logprobs["token_logprobs"][0] is None
    whole = [piece["token_id"] for piece in written["swarm"][0]["pieces"]]
    assert whole[: len(ids)] == ids
    scores = {**ASKED, "prompt": [whole, ids], "max_tokens": 0}
    status, _, scored = await served.post("/v1/completions", scores)
    assert status == 200
    longer, shorter = scored["choices"]
    assert len(shorter["logprobs"]["tokens"]) == len(ids)
    assert scored["usage"]["completion_tokens"] == 0
    found, expected = longer["logprobs"]["token_logprobs"], logprobs["token_logprobs"]
    assert found[1:] == pytest.approx(expected[1:], abs=1e-3)
    assert longer["logprobs"]["tokens"] == logprobs["tokens"]
    offsets = longer["logprobs"]["text_offset"]
    assert offsets == sorted(offsets)
    assert all(len(top) == 2 for top in longer["logprobs"]["top_logprobs"][1:])


async def test_a_prompt_is_told_without_scores(served):
    body = {"model": TARGET, "prompt": PROBLEM.prompt, "echo": True, "max_tokens": 3}
    status, _, reply = await served.post("/v1/completions", body)
    assert status == 200
    assert PROBLEM.question in reply["choices"][0]["text"]
    assert reply["choices"][0]["logprobs"] is None


async def test_a_stream_has_no_prompt(served):
    body = {"model": TARGET, "prompt": "x", "echo": True, "stream": True}
    status, _, reply = await served.post("/v1/completions", body)
    assert status == 400
    assert "not streamed" in reply["error"]["message"]
