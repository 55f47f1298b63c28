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
    """A client of a model that `swarm.shapes.folder` has written.

    Args:
        dense: compute all logits in float32, as clients did before they chose by bounds.
        options: those of `SwarmClient`.
    """

    def __init__(
        self,
        model: str,
        guesser: Guesser,
        *,
        dense: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(model, **options)
        self._guesser = guesser
        self._dense = dense

    def _load(self, checkpoint: Checkpoint) -> ClientModels:
        models = super()._load(checkpoint)
        if self._dense and models.head is not None:
            models.head.rounded = None
        if models.draft is None:
            return models
        return replace(models, draft=LuckyDraft.of(models.draft, self._guesser))
