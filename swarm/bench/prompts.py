"""Prompts as token ids of a model, as far as it can take them."""

from collections.abc import Sequence

from swarm.client.client import SwarmClient
from swarm.client.conversation import asking
from swarm.client.prompt import encoded
from swarm.errors import PromptTooLong
from swarm.request import Request
from swarm.util.prompt_files import Prompt


def fitting_prompts(
    client: SwarmClient, prompts: Sequence[Prompt], max_new_tokens: int
) -> list[tuple[Prompt, list[int]]]:
    """Return the prompts that the model can take, each with its token ids.

    A question goes through the model's chat template, if it has one.

    Raises:
        PromptTooLong: if there are none.
    """
    models = client.models
    request = Request.of({"max_new_tokens": max_new_tokens})
    fitting: list[tuple[Prompt, list[int]]] = []
    too_long: PromptTooLong | None = None
    for prompt in prompts:
        ids = prompt_ids(client, prompt)
        try:
            request.check_prompt(ids, models.checkpoint)
        except PromptTooLong as error:
            too_long = error
        else:
            fitting.append((prompt, ids))
    if too_long is not None and not fitting:
        raise too_long
    return fitting


def prompt_ids(client: SwarmClient, prompt: Prompt) -> list[int]:
    """Return the token ids of a prompt; a question's by the chat template, if there is one."""
    models = client.models
    if prompt.question:
        return asking(models.tokenizer, models.checkpoint.name)(prompt.text)
    return encoded(models.tokenizer, prompt.text)
