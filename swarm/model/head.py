"""The client's own part of the model: final norm and language-model head."""

from typing import Any

import torch
from torch import nn

from swarm.model.anatomy import LayersStandIn, Parts, replace_layers
from swarm.model.checkpoint import Checkpoint
from swarm.model.partial import build


class Head:
    """Turns the last layer's output into logits as the architecture does, soft caps included.

    Runs the model's own forward, in which a stand-in for the layers returns the true hidden states.
    So everything that a model does behind its layers is done. Use it from one thread at a time.
    """

    def __init__(self, model: nn.Module, parts: Parts) -> None:
        """`model` needs only its head."""
        self._model = model
        self._decoder = model.get_submodule(parts.decoder)
        self._layers = LayersStandIn(parts.tuples)
        replace_layers(model, parts.decoder, parts.layers, self._layers)
        parameter = next(model.parameters())
        self.dtype = parameter.dtype
        self.device = parameter.device

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> "Head":
        """Read norm and head (and the embedding where they share weights).

        Raises UnsupportedModel.
        """
        from swarm.model.rehearsal import rehearsed  # which runs spans and heads itself

        anatomy = rehearsed(checkpoint)
        modules = anatomy.head if anatomy.tied is None else (*anatomy.head, anatomy.tied)
        model = build(
            checkpoint, anatomy, layers=range(0), modules=modules, dtype=dtype, device=device
        )
        return cls(model, anatomy)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of raw outputs: [n, hidden] in any dtype -> [n, vocab] in float32."""
        logits: torch.Tensor = self._behind_layers(self._model, hidden).logits
        return logits[0].float()

    @torch.inference_mode()
    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the final norm to raw outputs: [n, hidden] in any dtype -> the same in float32."""
        normed: torch.Tensor = self._behind_layers(self._decoder, hidden).last_hidden_state
        return normed[0].float()

    def _behind_layers(self, module: nn.Module, hidden: torch.Tensor) -> Any:
        """Run a module that contains the decoder, as if the last layer had returned `hidden`."""
        rows = hidden.to(self.device, self.dtype).unsqueeze(0)
        self._layers.output = rows
        try:
            return module(inputs_embeds=rows, use_cache=False)
        finally:
            self._layers.output = None
