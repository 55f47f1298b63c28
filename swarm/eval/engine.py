"""Decoding in this process: as over a swarm, with the whole target in the place of the chain."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from transformers import PreTrainedModel

from swarm.client.conversation import asking
from swarm.client.models import ClientModels, make_lexicon
from swarm.client.prompt import encoded
from swarm.client.sequence import TextSequence
from swarm.decoding.drafting.feature import TappedToken
from swarm.decoding.sampling import Sampling
from swarm.errors import ConfigError
from swarm.eval.lockstep import Assignment, Lockstep
from swarm.eval.rule_writer import DraftWriter, RuleWriter
from swarm.eval.sample import EvalSample
from swarm.eval.variant import Variant
from swarm.eval.whole import Whole
from swarm.model.branching import BranchingModel
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.model.drafts.draft import DraftModel
from swarm.model.heads.loading import FeatureDraft
from swarm.model.whole import read_whole
from swarm.outputs import Generation, Measured
from swarm.request import Options, Request, check_tokens


@dataclass(frozen=True)
class Decoding:
    """How prompts are decoded: each in all variants.

    Attributes:
        chat: whether a prompt is a user's message; else it is a text to be continued.
    """

    variants: tuple[Variant, ...]
    temperature: float
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    chat: bool = False

    def options(self, variant: Variant, seed: int) -> Options:
        return variant.options(self.temperature, seed, self.stop, self.max_new_tokens)


class InProcess:
    """Target and draft, whole, in this process. Use it from one thread.

    Attributes:
        lockstep: decodes many texts at once; None if a model cannot read several texts in one
            forward.
    """

    def __init__(self, model: str, draft: str | None, compute: ComputeOptions = AUTOMATIC) -> None:
        """Raises `SwarmError` as `ClientModels.load` does."""
        self.models = ClientModels.load(model, draft, options=compute)
        loaded, _ = read_whole(model, torch.float32)
        self.target: PreTrainedModel = loaded.eval().to(self.models.own_head.device)
        branching = BranchingModel.of(self.target)
        head = self.models.draft if isinstance(self.models.draft, FeatureDraft) else None
        drafts = head or self.models.draft is None or self.models.draft.branching
        self.lockstep = Lockstep(self.models, branching) if branching and drafts else None
        # In lockstep a guess is made when its token is decided; a client asks for a whole block.
        self._blocks = head is not None and head.in_blocks
        self._without: dict[frozenset[str], ClientModels] = {frozenset(): self.models}

    def encode(self, prompt: str, *, chat: bool = False) -> list[int]:
        """Return the token ids of a prompt.

        A user's message gets the form that the target's chat template gives it, if there is one.
        """
        if chat:
            return asking(self.models.tokenizer, self.models.checkpoint.name)(prompt)
        return encoded(self.models.tokenizer, prompt)

    def decode(
        self, prompts: Sequence[str], seeds: Sequence[int], how: Decoding
    ) -> list[list[EvalSample]]:
        """Decode prompts; return the samples of each prompt, in the order of the variants.

        Raises what `TextSequence` raises.
        """
        texts = [self.encode(prompt, chat=how.chat) for prompt in prompts]
        windows = [each.window for each in how.variants]
        if self.lockstep is None or self._blocks or "auto" in windows:
            return [
                [self.sample(ids, each, how.options(each, seed)) for each in how.variants]
                for ids, seed in zip(texts, seeds, strict=True)
            ]
        assignments = [
            Assignment(
                ids,
                [self._writer(each, ids, how.options(each, seed)) for each in how.variants],
                Sampling(how.temperature, seed=seed),
                how.max_new_tokens,
                how.stop,
            )
            for ids, seed in zip(texts, seeds, strict=True)
        ]
        self.lockstep.run(assignments)
        return [[writer.sample for writer in each.writers] for each in assignments]

    def sample(self, prompt: Sequence[int], variant: Variant, options: Options) -> EvalSample:
        """Decode one prompt as a client does, window by window.

        Raises what `TextSequence` raises.
        """
        generation = self._generate(prompt, variant, Request.of(options))
        return EvalSample.of(generation, self._mean_log_p(prompt, generation.token_ids))

    def check(self, prompt: Sequence[int], new_tokens: int) -> None:
        """Raise `RequestError` or `PromptTooLong` if the target cannot take a prompt."""
        check_tokens(prompt, new_tokens, self.models.checkpoint)

    def _writer(self, variant: Variant, prompt: Sequence[int], options: Options) -> RuleWriter:
        models = self._models_for(variant)
        request = Request.of(options)
        self.check(prompt, request.max_new_tokens)
        rule = request.verification.rule(request.sampling, models.lexicon)
        if variant.draft_alone:
            return DraftWriter(rule)
        assert variant.window != "auto"  # see `decode`
        return RuleWriter(rule, variant.window)

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
                book = turn.decoder.book
                outputs = None
                if book is None:
                    logits = whole.answer(window)
                else:
                    logits, outputs = whole.answer_with_outputs(window, book.taps)
                    first = window.first + len(window.tokens) - window.tail
                    book.tapped(map(TappedToken, count(first), outputs))
                    book.prompt([window], outputs[:, 0])
                took_ms = (time.perf_counter() - started) * 1e3
                measured = Measured(took_ms, (took_ms,), positions=len(window.tokens))
                taken = turn.take([window], measured)
                rows = [row for row, _ in taken]
                nodes = [node for _, node in taken]
                if book is not None and outputs is not None:
                    book.answered(nodes, outputs[rows, 0])
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
        draft = self.models.draft
        if not isinstance(draft, DraftModel):
            problem = "it is a head of the target, which cannot write alone; give a draft model"
            raise ConfigError("draft", problem)
        return draft.model
