"""A client that is real in full, but for the luck of its draft."""

from dataclasses import replace

import torch
from typing_extensions import Unpack

from swarm.client.client import SwarmClient
from swarm.client.cpu_threads import CpuThreads
from swarm.client.models import ClientModels
from swarm.client.settings import ClientOptions
from swarm.model.checkpoint import Checkpoint
from swarm.shapes.drafting import lucky
from swarm.shapes.script import Guesser


class ShapedClient(SwarmClient):
    """A client of a model that `swarm.shapes.folder` has written.

    Args:
        as_before: judge and draft as clients did before they chose by bounds of logits and shared
            out threads: with all logits in float32, and all threads for each of the two.
        options: those of `SwarmClient`.
    """

    def __init__(
        self,
        model: str,
        guesser: Guesser,
        *,
        as_before: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(model, **options)
        self._guesser = guesser
        self._as_before = as_before

    def _load(self, checkpoint: Checkpoint) -> ClientModels:
        models = super()._load(checkpoint)
        if self._as_before:
            models.own_head.rounded = None
            all_threads = CpuThreads.shared(torch.get_num_threads(), beside=False)
            models = replace(models, threads=all_threads)
        if models.draft is None:
            return models
        return replace(models, draft=lucky(models.draft, self._guesser))
