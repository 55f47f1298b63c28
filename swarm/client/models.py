"""The client's models: the target's tokenizer, final norm and LM head, and the draft model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

from swarm.audit.guard import Guard
from swarm.decoding.confidence import Confidence
from swarm.decoding.rules.lexicon import Lexicon
from swarm.errors import ConfigError, NeedsHead
from swarm.model.checkpoint import Checkpoint
from swarm.model.draft import DraftModel
from swarm.model.head import Head
from swarm.model.quantization import Quantization

NO_PATTERNS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class ClientModels:
    """Everything that a generation computes with on the client."""

    checkpoint: Checkpoint
    tokenizer: PreTrainedTokenizerBase
    head: Head | None  # None: the last peer of the chain holds it
    draft: DraftModel | None
    lexicon: Lexicon  # shared by all generations, so that every token is classified once
    confidence: Confidence  # in the draft, learned by all generations together
    guard: Guard = field(default_factory=Guard)  # of the target's answers, which learns likewise

    @classmethod
    def load(
        cls,
        model: str,
        draft: str | None,
        key_patterns: Mapping[str, str] = NO_PATTERNS,
        quantization: Quantization | None = None,
        head: bool = True,
    ) -> "ClientModels":
        """Load the models; ``quantization`` is that of the peers' layers, and changes nothing here.

        Raise what `Checkpoint.open` and `of` raise.
        """
        return cls.of(Checkpoint.open(model, quantization), draft, key_patterns, head)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        draft: str | None,
        key_patterns: Mapping[str, str] = NO_PATTERNS,
        head: bool = True,
    ) -> "ClientModels":
        """Load the models of a checkpoint; without ``head`` a peer has to hold it.

        Raise what `Checkpoint.tokenizer`, `Head.load`, `DraftModel.load` and `make_lexicon` raise.
        """
        tokenizer = checkpoint.tokenizer()
        own_head = Head.load(checkpoint) if head else None
        if own_head is not None:
            own_head.round()
        return cls(
            checkpoint,
            tokenizer,
            own_head,
            DraftModel.load(draft, checkpoint, tokenizer) if draft else None,
            make_lexicon(checkpoint, tokenizer, key_patterns),
            Confidence(),
        )

    @property
    def own_head(self) -> Head:
        """The client's own head. Raises `NeedsHead` if it has none."""
        if self.head is None:
            raise NeedsHead("this")
        return self.head


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
