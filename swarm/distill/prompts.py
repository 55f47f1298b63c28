"""Prompts as a target's token ids."""

import contextlib
from collections.abc import Iterable, Iterator

from swarm.client.conversation import by_template
from swarm.client.prompt import encoded
from swarm.errors import NoChatTemplate
from swarm.model.checkpoint import Checkpoint
from swarm.request import context_tokens
from swarm.util.prompt_files import Prompt


def prompt_ids(
    prompts: Iterable[Prompt], checkpoint: Checkpoint, max_new_tokens: int
) -> Iterator[list[int]]:
    """Yield the token ids of the prompts that leave room for new tokens in the target's context.

    A question goes through the model's chat template, if it has one.
    """
    tokenizer = checkpoint.tokenizer()
    render = None
    with contextlib.suppress(NoChatTemplate):
        render = by_template(tokenizer, checkpoint.name)
    room = context_tokens(checkpoint) - max_new_tokens
    for prompt in prompts:
        if prompt.question and render is not None:
            ids = render([{"role": "user", "content": prompt.text}])
        else:
            ids = encoded(tokenizer, prompt.text)
        if 0 < len(ids) <= room:
            yield ids
