"""Decoding in this process: as over a swarm, with the whole target in the place of the chain."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from swarm.client.models import ClientModels, make_lexicon
from swarm.client.sequence import TextSequence
from swarm.decoding.windows import Window
from swarm.eval.variant import Variant
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.model.fit import without_progress_bar
from swarm.outputs import Generation, Measured
from swarm.request import Options, Request


@dataclass(frozen=True)
class EvalSample:
    """A generation and its likelihood.

    Attributes:
        mean_log_p: mean over its tokens of log p under the target; None if not computed.
    """

    generation: Generation
    mean_log_p: float | None


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


class InProcess:
    """Target and draft, whole, in this process. Use it from one thread."""

    def __init__(self, model: str, draft: str | None, compute: ComputeOptions = AUTOMATIC) -> None:
        """Raises `SwarmError` as `ClientModels.load` does."""
        self.models = ClientModels.load(model, draft, options=compute)
        with without_progress_bar():
            loaded = AutoModelForCausalLM.from_pretrained(
                model, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        self.target: PreTrainedModel = loaded.eval().to(self.models.own_head.device)
        self._without: dict[frozenset[str], ClientModels] = {frozenset(): self.models}

    def sample(self, prompt: str, variant: Variant, options: Options) -> EvalSample:
        """Decode one prompt. Raises what `TextSequence` raises."""
        ids = self.models.tokenizer(prompt).input_ids
        generation = self._generate(ids, variant, Request.of(options))
        return EvalSample(generation, self._mean_log_p(ids, generation.token_ids))

    def _generate(self, prompt: Sequence[int], variant: Variant, request: Request) -> Generation:
        turn = TextSequence(self._models_for(variant), prompt, request)
        whole = Whole(
            self._draft_model if variant.draft_alone else self.target,
            turn.models.checkpoint.vocab_size,
        )
        turn.meter.start()
        while not turn.decoder.finish_reason:
            while ask := turn.ask():
                turn.propose(ask, turn.draft(ask))
            for window in list(iter(turn.next_window, None)):
                started = time.perf_counter()
                logits = whole.answer(window)
                took_ms = (time.perf_counter() - started) * 1e3
                measured = Measured(took_ms, (took_ms,))
                taken = turn.take([window], measured)
                rows = [row for row, _ in taken]
                nodes = [node for _, node in taken]
                turn.judge(nodes, logits[rows], measured)
        return turn.sum_up()

    @torch.inference_mode()
    def _mean_log_p(self, prompt: Sequence[int], new: Sequence[int]) -> float:
        """Return the mean log p of the new tokens under the target, at temperature 1."""
        ids = torch.tensor([[*prompt, *new]], device=self.target.device)
        log_p = self.target(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        return float(log_p.gather(-1, ids[0, len(prompt) :, None]).mean())

    def _models_for(self, variant: Variant) -> ClientModels:
        if variant.without not in self._without:
            models = self.models
            lexicon = make_lexicon(models.checkpoint, models.tokenizer, without=variant.without)
            self._without[variant.without] = replace(models, lexicon=lexicon)
        return self._without[variant.without]

    @property
    def _draft_model(self) -> PreTrainedModel:
        assert self.models.draft is not None
        return self.models.draft.model
