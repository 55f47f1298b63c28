"""Requests of an agent begin with the same instructions, and each says how much was not read."""

import pytest

from helpers.gateway_in_process import PROBLEM, TARGET
from swarm.client.session_cache import common

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
SAID = ("So many shells", "So few boxes", "So 7 apples")


def bodies(said: str) -> dict[str, dict[str, object]]:
    """Return the same question in each protocol, by its path."""
    one = {"model": TARGET, "temperature": 0}
    user = {"role": "user", "content": said}
    return {
        "/v1/chat/completions": {
            **one,
            "max_tokens": 4,
            "messages": [{"role": "system", "content": PROBLEM.prompt}, user],
        },
        "/v1/messages": {**one, "max_tokens": 4, "system": PROBLEM.prompt, "messages": [user]},
        "/v1/responses": {
            **one,
            "max_output_tokens": 16,
            "instructions": PROBLEM.prompt,
            "input": said,
        },
    }


CACHED = {
    "/v1/chat/completions": lambda usage: usage["prompt_tokens_details"]["cached_tokens"],
    "/v1/messages": lambda usage: usage["cache_read_input_tokens"],
    "/v1/responses": lambda usage: usage["input_tokens_details"]["cached_tokens"],
}


@pytest.mark.parametrize("first", list(CACHED))
async def test_other_requests_do_not_have_the_same_instructions_read_again(
    first, served, monkeypatch
):
    """Whatever the protocol of the one that had them read."""
    tokenizer = served.swarm._models.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    served.swarm.kept.least_shared = 16
    texts = [PROBLEM.prompt + said for said in SAID]
    prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    # of a prompt all of which is held, the last token is read
    shared = [
        max(min(common(prompt, earlier), len(prompt) - 1) for earlier in prompts[:number])
        for number, prompt in enumerate(prompts)
        if number
    ]
    assert min(shared) >= 16
    paths = [first, *(path for path in CACHED if path != first)]
    for number, (path, said) in enumerate(zip(paths, SAID, strict=True)):
        status, _, answer = await served.post(path, bodies(said)[path])
        assert status == 200, answer
        assert CACHED[path](answer["usage"]) == [0, *shared][number]
