"""The client's own part of the model: final norm and language-model head."""

from typing import Any

import torch
from torch import nn

from swarm.model.checkpoint import Checkpoint
from swarm.model.partial import NO_ATTENTION, build, narrow, study


class Head:
    """Turns the last layer's output into logits, exactly as the architecture does (soft caps and scales included).

    It is the model's own forward with no layers; the true hidden states replace what reaches the final norm.
    To be used from one thread at a time.
    """

    def __init__(self, model: nn.Module, entry: nn.Module, hidden_size: int) -> None:
        """`entry` is the module of `model` that receives the last layer's output."""
        self.hidden_size = hidden_size
        self._model = model
        self._entry = entry
        self._hidden: torch.Tensor | None = None
        parameter = next(model.parameters())
        self.dtype, self.device = parameter.dtype, parameter.device
        entry.register_forward_pre_hook(self._substitute, with_kwargs=True)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> "Head":
        """Read norm and head (and the embedding where they share weights). Raises UnsupportedModel."""
        anatomy = study(checkpoint)
        modules = anatomy.head if anatomy.tied is None else (*anatomy.head, anatomy.tied)
        model = build(checkpoint, anatomy, layers=range(0), modules=modules, dtype=dtype, device=device)
        decoder = model.get_submodule(anatomy.decoder)
        decoder.config = narrow(decoder.config, 0, 0)
        decoder.config._attn_implementation = NO_ATTENTION
        model.set_submodule(anatomy.layers, nn.ModuleList())
        return cls(model, model.get_submodule(anatomy.head[0]), checkpoint.hidden_size)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits for raw outputs of the last layer: [n, hidden] in any dtype -> [n, vocab] float32."""
        self._hidden = hidden.to(self.device, self.dtype).unsqueeze(0)
        logits: torch.Tensor = self._model(inputs_embeds=self._hidden, use_cache=False).logits
        return logits[0].float()

    @torch.inference_mode()
    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw outputs of the last layer, behind the final norm: [n, hidden] in any dtype -> the same in float32."""
        self._hidden = hidden.to(self.device, self.dtype).unsqueeze(0)
        normed: torch.Tensor = self._entry(self._hidden)
        return normed[0].float()

    def _substitute(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (self._hidden, *args[1:]), kwargs
