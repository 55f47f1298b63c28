"""A whole draft model, and its translation to the target's vocabulary."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swarm.decoding.drafting.choices import Chooser
from swarm.decoding.drafting.drafter import Drafter, Source
from swarm.decoding.drafting.model import ModelDrafter
from swarm.decoding.drafting.reduced import ReducedVocabulary
from swarm.decoding.drafting.tree import TreeDrafter
from swarm.decoding.drafting.vocabulary import SameVocabulary, Translation, Vocabulary
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.errors import DraftMismatch, ModelNotFound
from swarm.model.branching import BranchingModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ALL, AUTO, ComputeOptions
from swarm.model.drafts.loading import branching_of, load_draft
from swarm.model.drafts.reduced_head import rows_to_keep
from swarm.model.edge import explained
from swarm.model.folder import look
from swarm.model.forward_watch import ForwardWatch
from swarm.model.gguf.source import gguf_of
from swarm.model.recurrent.line import StatefulModel
from swarm.model.tokenizer import read_tokenizer

# The least share of the smaller vocabulary that is in both: the smaller, so that a large vocabulary
# may draft for a small one. Vocabularies for the same languages share more, the common words. With
# less, the draft was made for other languages, or we do not understand its spelling, and most of
# its guesses would cost a forward pass for nothing. Estimated, not measured.
MIN_COVERAGE = 0.25
AS_IT_IS = ComputeOptions(device="cpu", draft_dtype="float32", draft_vocab=ALL)


@dataclass(frozen=True)
class DraftModel:
    """A small causal language model, shared by all generations of a client.

    Attributes:
        branching: the same weights, reading trees; None for a model that cannot.
        stateful: the same weights, reading lines with the states of recurrent layers; None for a
            model that keeps none.
        dtype: the name of its weights' dtype, one of `swarm.model.compute.DRAFT_DTYPES`.
        weights: how many it has.
        vocab: how many tokens its head computes.
        asked: whether this dtype was asked for; else it is the fastest one here.
    """

    model: PreTrainedModel
    vocabulary: Vocabulary
    branching: BranchingModel | None
    dtype: str
    weights: int
    vocab: int
    asked: bool = False
    stateful: StatefulModel | None = None

    @classmethod
    def load(
        cls,
        name: str,
        target: Checkpoint,
        tokenizer: PreTrainedTokenizerBase,
        options: ComputeOptions = AS_IT_IS,
    ) -> "DraftModel":
        """Load a draft model (folder, GGUF file or hub id) whole; ``tokenizer`` is the target's.

        Args:
            options: by default it is loaded in float32 on the CPU, with all rows of its head.

        Raises:
            ModelNotFound, DamagedModel, UnsupportedModel: if there is no such model, or it cannot
                be loaded.
            NoSuchDevice, ConfigError: if this computer has no such device, or cannot quantize so.
            DraftMismatch: if less than MIN_COVERAGE of its vocabulary, or of the target's, is in
                both.
        """
        look(name, draft=True)
        with explained(
            lambda why: ModelNotFound(name, f"it cannot be loaded as a draft model ({why})")
        ):
            # The vocabulary first: a draft that cannot serve need not be downloaded.
            gguf = gguf_of(name)
            own = read_tokenizer(name, name) if gguf is None else gguf.tokenizer()
            vocabulary = _vocabulary(name, own, target, tokenizer)

            def choose_rows(head_rows: int) -> torch.Tensor | None:
                if options.draft_vocab == ALL:
                    return None
                count = options.draft_vocab if isinstance(options.draft_vocab, int) else None
                return rows_to_keep(vocabulary, own, head_rows, count, target.eos_token_ids)

            loaded = load_draft(name, options, choose_rows)
        if loaded.rows is not None:
            vocabulary = ReducedVocabulary(vocabulary, loaded.rows)
        return cls(
            loaded.model,
            vocabulary,
            branching_of(loaded),
            loaded.dtype,
            loaded.weights,
            loaded.vocab,
            asked=options.draft_dtype != AUTO,
            stateful=StatefulModel.of(loaded.model),
        )

    @property
    def source(self) -> Source:
        """Which source its guesses come from."""
        return Source.MODEL

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def watch(self, watch: ForwardWatch) -> None:
        """Let a watch be told of the model's forwards, if it reads trees."""
        if self.branching is not None:
            self.branching.watch = watch

    def drafter(self, sampling: Sampling, shaping: Shaping, stop_ids: frozenset[int]) -> Drafter:
        """Return a drafter for one generation, with its own cache."""
        chooser = Chooser(sampling, self.vocabulary, shaping, stop_ids, self.source)
        if self.branching is None:
            reader = None if self.stateful is None else self.stateful.reader()
            return ModelDrafter(self.model, chooser, reader)
        return TreeDrafter(self.branching.reader(), chooser)


def _vocabulary(
    name: str,
    draft: PreTrainedTokenizerBase,
    target: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
) -> Vocabulary:
    if draft.get_vocab() == tokenizer.get_vocab():
        return SameVocabulary(target.vocab_size)
    translation = Translation(draft, tokenizer, target.vocab_size)
    if translation.overlap < MIN_COVERAGE:
        raise DraftMismatch(name, target.name, translation.overlap, MIN_COVERAGE)
    return translation
