"""The client's models: the target's tokenizer, final norm and LM head, and the draft model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType

import torch
from transformers import PreTrainedTokenizerBase

from swarm.audit.guard import Guard
from swarm.client.by_owner import ByOwner
from swarm.client.cpu_threads import ONE_EACH, Cores, CpuThreads, Executors
from swarm.client.grammar import Grammars
from swarm.decoding.calibration import Calibrations
from swarm.decoding.confidence import Confidence
from swarm.decoding.drafting.correction import Correction
from swarm.decoding.rules.lexicon import Lexicon
from swarm.errors import ConfigError, NeedsHead
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import AUTOMATIC, SMALL_WEIGHTS, ComputeOptions
from swarm.model.device import choose_device
from swarm.model.drafts.choice import Draft, load_any_draft
from swarm.model.head import Head
from swarm.model.quantization import Quantization
from swarm.outputs import Compute

MAX_CORRECTED = 16  # owners of texts that a draft learns from
NO_PATTERNS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class ClientModels:
    """Everything that a generation computes with on the client."""

    checkpoint: Checkpoint
    tokenizer: PreTrainedTokenizerBase
    head: Head | None  # None: the last peer of the chain holds it
    draft: Draft | None
    lexicon: Lexicon  # shared by all generations, so that every token is classified once
    confidence: Confidence  # in the draft, learned by all generations together
    corrections: ByOwner[Correction] | None = None  # of the draft's errors; None corrects nothing
    calibrations: Calibrations = field(default_factory=Calibrations)  # of a head
    guard: Guard = field(default_factory=Guard)  # of the target's answers, which learns likewise
    threads: CpuThreads = ONE_EACH  # that a client drafts and judges with

    @classmethod
    def load(
        cls,
        model: str,
        draft: str | None,
        key_patterns: Mapping[str, str] = NO_PATTERNS,
        quantization: Quantization | None = None,
        head: bool = True,
        options: ComputeOptions = AUTOMATIC,
    ) -> "ClientModels":
        """Load the models; ``quantization`` is that of the peers' layers, and changes nothing here.

        Raise what `Checkpoint.open` and `of` raise.
        """
        return cls.of(Checkpoint.open(model, quantization), draft, key_patterns, head, options)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        draft: str | None,
        key_patterns: Mapping[str, str] = NO_PATTERNS,
        head: bool = True,
        options: ComputeOptions = AUTOMATIC,
    ) -> "ClientModels":
        """Load the models of a checkpoint to where ``options`` says.

        Without ``head`` a peer has to hold it.

        Raise what `Checkpoint.tokenizer`, `choose_device`, `Head.load`, `load_any_draft`
        and `make_lexicon` raise.
        """
        tokenizer = checkpoint.tokenizer()
        weights = checkpoint.vocab_size * checkpoint.hidden_size  # of the head
        own_head = None
        if head:
            own_head = Head.load(checkpoint, device=choose_device(options.device, weights))
            own_head.round()
        drafting = load_any_draft(draft, checkpoint, tokenizer, options) if draft else None
        on_cpu = []  # weights of the models there
        if own_head is not None and own_head.device.type == "cpu":
            on_cpu.append(weights)
        if drafting is not None and drafting.device.type == "cpu":
            on_cpu.append(drafting.weights)
        large = max(on_cpu, default=0) >= SMALL_WEIGHTS
        beside = large and len(on_cpu) == 2
        return cls(
            checkpoint,
            tokenizer,
            own_head,
            drafting,
            make_lexicon(checkpoint, tokenizer, key_patterns),
            Confidence(),
            new_corrections(checkpoint.vocab_size) if drafting else None,
            threads=CpuThreads.shared(torch.get_num_threads(), beside, large),
        )

    @cached_property
    def grammars(self) -> Grammars:
        """Compiles constraints of answers; shared by all generations."""
        return Grammars(self.tokenizer, self.checkpoint.vocab_size)

    def share_cores(self, executors: Executors) -> Executors:
        """Return executors for the same threads, in which drafting and judging have all cores while
        the other one has nothing to do."""
        cores = Cores(self.threads)
        if self.threads.tuned and self.draft is not None:
            self.draft.watch(cores)
        return cores.share(executors)

    @property
    def compute(self) -> Compute:
        """Where the client computes, and in which dtype it drafts."""
        draft = self.draft
        return Compute(
            device=None if self.head is None else str(self.head.device),
            draft_device=None if draft is None else str(draft.device),
            draft_dtype=None if draft is None else draft.dtype,
            draft_vocab=None if draft is None else draft.vocab,
            draft_dtype_asked=draft is not None and draft.asked,
            judging_threads=self.threads.judging,
            drafting_threads=self.threads.drafting,
        )

    @property
    def own_head(self) -> Head:
        """The client's own head. Raises `NeedsHead` if it has none."""
        if self.head is None:
            raise NeedsHead("this")
        return self.head


def new_corrections(vocabulary: int, owners: int = MAX_CORRECTED) -> ByOwner[Correction]:
    """Return what is to be learned of one draft's errors, of so many owners at most."""
    return ByOwner(partial(Correction, vocabulary), owners)


def make_lexicon(
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    patterns: Mapping[str, str] = NO_PATTERNS,
    without: frozenset[str] = frozenset(),
) -> Lexicon:
    """Return the lexicon of a vocabulary's key tokens.

    Raise `ConfigError` for an invalid regular expression.
    """

    def decode(ids: Sequence[int]) -> str:
        return str(
            tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    try:
        compiled = {name: re.compile(pattern) for name, pattern in patterns.items()}
    except re.error as error:
        raise ConfigError(
            "key pattern", f"{error.pattern!r} is no regular expression ({error})"
        ) from None
    special_ids = frozenset(tokenizer.all_special_ids)
    letter = tokenizer("a", add_special_tokens=False).input_ids
    return Lexicon(decode, checkpoint.eos_token_ids, special_ids, compiled, without, before=letter)
