"""The target behind a swarm, as the author of texts."""

from collections.abc import Callable, Iterator, Sequence

import torch

from swarm.client.batch import DEFAULT_AT_ONCE
from swarm.client.sync import BlockingClient
from swarm.distill.corpus import sixteen_bits
from swarm.distill.settings import Writing
from swarm.distill.texts import TargetText


class SwarmAuthor:
    """Writes through a client, and has its chains read what they wrote once more for the states.

    Args:
        client: one that is open and has the head.
    """

    def __init__(self, client: BlockingClient, writing: Writing) -> None:
        self._client = client
        self._writing = writing
        self._batches = 0

    def write(
        self, prompts: Sequence[Sequence[int]], wrote: Callable[[int], None]
    ) -> Iterator[TargetText]:
        """See `swarm.distill.collecting.Author`.

        Raises:
            SwarmError: what `SwarmClient.generate_many` and `SwarmClient.read` raise.
        """
        writing = self._writing
        self._batches += 1
        for start in range(0, len(prompts), DEFAULT_AT_ONCE):
            some = prompts[start : start + DEFAULT_AT_ONCE]
            generations = self._client.generate_many(
                some,
                max_new_tokens=writing.max_new_tokens,
                temperature=writing.temperature,
                seed=writing.seed + self._batches * len(prompts) + start,
            )
            wrote(sum(len(generation.token_ids) for generation in generations))
            for prompt, generation in zip(some, generations, strict=True):
                tokens = [*prompt, *generation.token_ids]
                outputs = self._client.read(tokens, logits_to_keep=1).outputs
                yield TargetText(torch.tensor(tokens), sixteen_bits(outputs), len(prompt))
