"""The target in this process: it writes texts in batches, and gives its states for them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swarm.distill.corpus import sixteen_bits
from swarm.distill.roomy_cache import roomy_cache
from swarm.distill.settings import Writing
from swarm.distill.texts import TargetText, WrittenText
from swarm.errors import UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import SMALL_WEIGHTS
from swarm.model.device import choose_device, has_bfloat16
from swarm.model.edge import explained
from swarm.model.rehearsal import rehearsed
from swarm.model.whole import outline_of, read_whole

COMPACT_SHARE = 0.75  # of a batch: when fewer still write, the others are dropped from its cache
OVER = -1  # in the place of a text that has ended
READ_TOKENS = 4096  # of a batch of texts whose states are read


class LocalTarget:
    """The whole target model.

    Attributes:
        device: where it computes.
        dtype: in which it computes.
    """

    def __init__(self, checkpoint: Checkpoint, model: PreTrainedModel, writing: Writing) -> None:
        self.checkpoint = checkpoint
        self._writing = writing
        self._generator = torch.Generator().manual_seed(writing.seed)
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self._model: Any = model
        self._decoder: Any = model.get_submodule(rehearsed(checkpoint).decoder)
        self._raw: Tensor | None = None
        layers: Any = model.get_submodule(rehearsed(checkpoint).layers)
        layers[-1].register_forward_hook(self._catch)

    @classmethod
    def load(
        cls, name: str, checkpoint: Checkpoint, device: str, writing: Writing
    ) -> "LocalTarget":
        """Read the whole model: in float32 if it is small, else in bfloat16 where that is fast.

        Raises:
            NoSuchDevice, UnsupportedModel.
        """
        with explained(
            lambda why: UnsupportedModel(checkpoint.name, f"it cannot be loaded: {why}")
        ):
            outline = outline_of(checkpoint.model_config)
            weights = sum(parameter.numel() for parameter in outline.parameters())
            place = choose_device(device, weights)
            rough = weights >= SMALL_WEIGHTS and has_bfloat16(place)
            model, _ = read_whole(name, torch.bfloat16 if rough else torch.float32)
        return cls(checkpoint, model.eval().requires_grad_(False).to(place), writing)

    def write(
        self, prompts: Sequence[Sequence[int]], wrote: Callable[[int], None]
    ) -> Iterator[TargetText]:
        """See `swarm.distill.collecting.Author`."""
        return self.read(self.continued(prompts, wrote))

    @torch.inference_mode()
    def continued(
        self,
        prompts: Sequence[Sequence[int]],
        wrote: Callable[[int], None] = lambda tokens: None,
    ) -> list[WrittenText]:
        """Continue prompts, side by side, up to the tokens that end a text.

        Args:
            wrote: called with the number of new tokens behind each step.
        """
        writing = self._writing
        ends = torch.tensor(sorted(self.checkpoint.eos_token_ids), device=self.device)
        texts = [list(prompt) for prompt in prompts]
        rows = list(range(len(texts)))  # of `texts`, those that are still written
        longest = max(map(len, texts))
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        mask = torch.zeros(len(texts), longest, dtype=torch.long)
        for row, prompt in enumerate(texts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        cache = roomy_cache(self.checkpoint.config)

        def given(ids: Tensor, mask: Tensor) -> dict[str, Any]:
            """Return what the model reads: the newest tokens, and which of all are no padding."""
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            return {
                "input_ids": ids,
                "attention_mask": mask,
                "position_ids": positions,
                "past_key_values": cache,
                "use_cache": True,
            }

        # The LM head is asked behind single tokens alone: for the last ones of longer rows, torch
        # would make a batch of products, with a copy of the head's weights for each text.
        if longest > 1:
            self._decoder(**given(ids[:, :-1], mask[:, :-1]))
            ids = ids[:, -1:]
        for _ in range(writing.max_new_tokens):
            logits = self._model(**given(ids, mask)).logits[:, -1]
            chosen = _choose(logits, writing.temperature, self._generator)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if row != OVER:
                    texts[row].append(token)
            wrote(sum(row != OVER for row in rows))
            ended = torch.isin(chosen, ends).tolist()
            rows = [OVER if end else row for row, end in zip(rows, ended, strict=True)]
            alive = [at for at, row in enumerate(rows) if row != OVER]
            if not alive:
                break
            if len(alive) <= COMPACT_SHARE * len(rows):
                kept = torch.tensor(alive, device=self.device)
                cache.batch_select_indices(kept)
                chosen, mask = chosen[kept], mask[kept]
                rows = [rows[at] for at in alive]
            ids = chosen[:, None]
            mask = torch.cat((mask, mask.new_ones(len(rows), 1)), 1)
        return [
            WrittenText(tuple(text), len(prompt))
            for text, prompt in zip(texts, prompts, strict=True)
        ]

    @torch.inference_mode()
    def read(self, texts: Sequence[WrittenText]) -> Iterator[TargetText]:
        """Yield texts with their states, in an order of their own."""
        for group in _groups(texts, READ_TOKENS):
            longest = max(len(text.tokens) for text in group)
            ids = torch.zeros(len(group), longest, dtype=torch.long)
            for row, text in enumerate(group):
                ids[row, : len(text.tokens)] = torch.tensor(text.tokens)
            # No token sees those behind it, so padding there changes nothing.
            self._decoder(input_ids=ids.to(self.device), use_cache=False)
            assert self._raw is not None
            states = self._raw.float().cpu()
            self._raw = None
            for row, text in enumerate(group):
                own = sixteen_bits(states[row, : len(text.tokens)])
                yield TargetText(torch.tensor(text.tokens), own, text.prompt)

    def _catch(self, module: object, args: tuple[Any, ...], output: Any) -> None:
        self._raw = output[0] if isinstance(output, tuple) else output


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Return a token for each row of logits ``[n, vocabulary]``."""
    if temperature == 0:
        return logits.argmax(-1)
    chances = (logits.float() / temperature).softmax(-1).cpu()
    return torch.multinomial(chances, 1, generator=generator)[:, 0].to(logits.device)


def _groups(texts: Sequence[WrittenText], tokens: int) -> Iterator[list[WrittenText]]:
    """Yield texts of like length together, of at most ``tokens`` with their padding."""
    group: list[WrittenText] = []
    for text in sorted(texts, key=lambda text: len(text.tokens)):
        if group and (len(group) + 1) * len(text.tokens) > tokens:
            yield group
            group = []
        group.append(text)
    if group:
        yield group
