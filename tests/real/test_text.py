"""SmolLM2 over a chain of three peers says what transformers says."""

import pytest
import torch
from transformers import PreTrainedModel

from helpers.swarm_in_process import Material, Swarm, swarm_of
from swarm.client.conversation import Message, by_template

NEW_TOKENS = 12
QUESTIONS = (
    "What is the capital of France?",
    "Write the numbers from one to ten.",
    "日本の首都はどこですか。",
)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_greedy_text_is_that_of_transformers(
    question: str, chain: Material, whole: PreTrainedModel
) -> None:
    tokenizer = chain.models.tokenizer
    prompt = by_template(tokenizer, "SmolLM2")([Message(role="user", content=question)])
    expected = whole.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)[
        0, len(prompt) :
    ]
    async with swarm_of(lambda: Swarm(chain), *chain.spans) as swarm:
        for lookup in (False, True):
            stream = swarm.stream(
                prompt, max_new_tokens=NEW_TOKENS, logit_bias={}, lookup=lookup, patience_s=60.0
            )
            pieces = [piece.text async for piece in stream]
            assert stream.result.token_ids == tuple(expected.tolist())
            assert "".join(pieces) == stream.result.text
            assert stream.result.text == tokenizer.decode(expected, skip_special_tokens=True)
