"""A whole target in this process, in the place of a chain of peers."""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from swarm.decoding.windows import Window
from swarm.eval.layer_outputs import layer_outputs
from swarm.model.anatomy import layers_of


class Whole:
    """A whole model that answers windows as a chain of peers does.

    Rolls its cache back to where a window starts.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int) -> None:
        self.model = model
        self.vocab_size = vocab_size
        # Without a config no layer drops old tokens: every layer can be rolled back.
        self._cache = DynamicCache()
        self._length = 0

    def answer_with_outputs(
        self, window: Window, taps: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Return what `answer` does, and outputs ``[tail, layers, hidden]``: of the tapped layers,
        or else of the last one."""
        with layer_outputs(layers_of(self.model), taps) as outputs:
            logits = self.answer(window)
        return logits, outputs.stacked[len(window.tokens) - window.tail :]

    @torch.inference_mode()
    def answer(self, window: Window) -> Tensor:
        """Return the predictions ``[tail, vocabulary]`` for a window."""
        if window.position < self._length:
            self._cache.crop(window.position - self._length)
        self._length = window.position + len(window.tokens)
        ids = torch.tensor([window.tokens], device=self.model.device)
        logits: Tensor = self.model(
            input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=max(1, window.tail),
        ).logits[0, :, : self.vocab_size]
        return (logits if window.tail else logits[:0]).float().cpu()
