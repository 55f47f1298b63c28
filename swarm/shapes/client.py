"""A client that is real in full, but for the luck of its draft."""

from dataclasses import replace

from typing_extensions import Unpack

from swarm.client.client import SwarmClient
from swarm.client.models import ClientModels
from swarm.client.settings import ClientOptions
from swarm.model.checkpoint import Checkpoint
from swarm.shapes.drafting import LuckyDraft
from swarm.shapes.script import Guesser


class ShapedClient(SwarmClient):
    """A client of a model that `swarm.shapes.folder` has written. Arguments as of `SwarmClient`."""

    def __init__(self, model: str, guesser: Guesser, **options: Unpack[ClientOptions]) -> None:
        super().__init__(model, **options)
        self._guesser = guesser

    def _load(self, checkpoint: Checkpoint) -> ClientModels:
        models = super()._load(checkpoint)
        if models.draft is None:
            return models
        return replace(models, draft=LuckyDraft.of(models.draft, self._guesser))
