"""The client's own part of the model: final norm and language-model head."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swarm.decoding.certificate import Bounds, Refine
from swarm.model.anatomy import LayersStandIn, Parts, mask, replace_layers
from swarm.model.checkpoint import Checkpoint
from swarm.model.kernels.int8 import Pack, fastest
from swarm.model.kernels.rounded_head import RoundedHead
from swarm.model.kernels.rounding import MOST_FACTOR, TERMS
from swarm.model.lm_head import Finish, LmHeadStandIn, stand_in_for
from swarm.model.partial import build
from swarm.model.quantization import weight_bytes
from swarm.model.wrapping import text_of

HOLDS_WITHIN = 1e-5  # of the largest logit: float32's sums of thousands of products
LEAST_ROUNDED = 1 << 24  # weights; a smaller head takes a millisecond as it is


class Head:
    """Turns the last layer's output into logits as the architecture does, soft caps included.

    Runs the model's own forward, in which a stand-in for the layers returns the true hidden states.
    So everything that a model does behind its layers is done. Use it from one thread at a time.

    Attributes:
        nbytes: the memory of its weights, as they were loaded.
        rounded: an int8 copy of the LM head; None before `round` has made one.
    """

    def __init__(self, model: PreTrainedModel, parts: Parts) -> None:
        """`model` needs only its head."""
        self._model = model
        self._decoder = model.get_submodule(parts.decoder)
        self._layers = LayersStandIn(parts.returned)
        replace_layers(model, parts.decoder, parts.layers, self._layers)
        self._masked = parts.masked
        self._width = int(text_of(model.config).hidden_size)
        self.nbytes = weight_bytes(model)
        parameter = next(model.parameters())
        self.dtype: torch.dtype = parameter.dtype
        self.device: torch.device = parameter.device
        self.rounded: RoundedHead | None = None
        self._lm_head: LmHeadStandIn | None = None

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

    @classmethod
    def norm_of(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> "Head":
        """Read the norm alone, in float32: a head of which only `normed` may be called.

        Raises UnsupportedModel.
        """
        from swarm.model.rehearsal import rehearsed  # which runs spans and heads itself

        anatomy = rehearsed(checkpoint)
        norm = [name for name in anatomy.head if name.startswith(f"{anatomy.decoder}.")]
        model = build(
            checkpoint,
            anatomy,
            layers=range(0),
            modules=norm or anatomy.head,
            dtype=torch.float32,
            device=device,
        )
        return cls(model, anatomy)

    @torch.inference_mode()
    def round(self, pack: Pack | None = None) -> None:
        """Make an int8 copy of the LM head, where `bounds` is then faster than `logits`.

        Takes seconds for a large vocabulary. Nothing is made on a GPU, which is fast as it is, for
        a small head or one that is not as wide as the layers, on a computer without fast products
        of int8, and for a model whose logits are no increasing function of its LM head's output,
        each by itself.

        Args:
            pack: the product of int8 to use; None for the fastest here, if it is faster than
                float32.
        """
        if self.device.type != "cpu" or self.dtype != torch.float32 or self.rounded is not None:
            return
        linear = self._model.get_output_embeddings()
        if type(linear) is not nn.Linear or linear.in_features != self._width:
            return
        weight = linear.weight
        if pack is None and weight.numel() >= LEAST_ROUNDED:
            pack = fastest(weight, MOST_FACTOR, TERMS)
        if pack is None:
            return
        self._lm_head = stand_in_for(linear, self._model)
        self._finish = Finish(self._behind_lm_head, len(weight))
        if not self._finish.usable:
            return
        self.rounded = RoundedHead(weight, linear.bias, pack)
        if not self._holds():
            self.rounded = None

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of raw outputs: [n, hidden] in any dtype -> [n, vocab] in float32.

        The result is on the CPU, as that of `normed`.
        """
        logits: Tensor = self._behind_layers(self._model, hidden).logits
        return logits[0].float().cpu()

    @torch.inference_mode()
    def normed(self, hidden: Tensor) -> Tensor:
        """Apply the final norm to raw outputs: [n, hidden] in any dtype -> the same in float32."""
        normed: Tensor = self._behind_layers(self._decoder, hidden).last_hidden_state
        return normed[0].float().cpu()

    @torch.inference_mode()
    def bounds(self, hidden: Tensor) -> tuple[Bounds, Refine]:
        """Return bounds of the logits of raw outputs ``[n, hidden]`` in any dtype, from `rounded`.

        The second value returns some of the logits exactly: those of `logits`, but for the order in
        which these are summed.
        """
        assert self.rounded is not None
        assert self._lm_head is not None
        rounded = self.rounded
        self._lm_head.given = torch.zeros(1, len(hidden), 1)
        try:
            self._behind_layers(self._model, hidden)
        finally:
            self._lm_head.given = None
        assert self._lm_head.entered is not None
        entered = self._lm_head.entered[0]
        lower, upper = self._finish.bounds(*rounded.bounds(entered))

        @torch.inference_mode()
        def refine(rows: Tensor, tokens: Tensor) -> Tensor:
            return self._finish.of(rounded.exact(entered, rows, tokens)[None])[0]

        return Bounds(lower, upper), refine

    def _behind_lm_head(self, given: Tensor) -> Tensor:
        """Return the model's logits where its LM head returned ``given [n, columns]``."""
        assert self._lm_head is not None
        self._lm_head.given = given[None]
        try:
            rows = given.new_zeros(len(given), self._lm_head.weight.shape[1])
            logits: Tensor = self._behind_layers(self._model, rows).logits
        finally:
            self._lm_head.given = None
        return logits[0]

    def _holds(self) -> bool:
        """Return whether the logits of random outputs are within their bounds."""
        assert self._lm_head is not None
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(2, self._lm_head.weight.shape[1], generator=generator)
        logits = self.logits(hidden)
        bounds, _ = self.bounds(hidden)
        slack = logits.abs().max() * HOLDS_WITHIN
        inside = (bounds.lower - slack <= logits) & (logits <= bounds.upper + slack)
        return bool(inside.all())

    def _behind_layers(self, module: nn.Module, hidden: Tensor) -> Any:
        """Run a module that contains the decoder, as if the last layer had returned `hidden`."""
        rows = hidden.to(self.device, self.dtype).unsqueeze(0)
        self._layers.output = rows
        try:
            return module(inputs_embeds=rows, use_cache=False, **mask(self._masked, self.device))
        finally:
            self._layers.output = None
