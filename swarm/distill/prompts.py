"""Prompts as a target's token ids."""

from collections.abc import Iterable, Iterator

from swarm.client.conversation import asking
from swarm.client.prompt import encoded
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
    ask = asking(tokenizer, checkpoint.name)
    room = context_tokens(checkpoint) - max_new_tokens
    for prompt in prompts:
        ids = ask(prompt.text) if prompt.question else encoded(tokenizer, prompt.text)
        if 0 < len(ids) <= room:
            yield ids
