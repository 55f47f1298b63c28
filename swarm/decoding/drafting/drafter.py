"""The interface of a drafter, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from torch import Tensor

from swarm.decoding.drafting.feature import Feature


class Source(Enum):
    """Where a guess comes from.

    Every source has its own drafter. The decoder asks them one by one, and its tree merges what
    they return. They stand in the order in which they are asked: a cheaper one comes first.
    """

    FORCED = "forced"  # what a constraint makes the text go on with
    COPY = "copy"  # what followed the same tokens before
    FEATURES = "features"  # a head that reads the target's hidden states
    MODEL = "model"  # a language model of its own

    # An enumeration's own hash is a Python function, and a draft tree asks for it all the time.
    __hash__ = object.__hash__

    @property
    def is_free(self) -> bool:
        """Whether a guess costs the client next to nothing."""
        return self in (Source.FORCED, Source.COPY)


@dataclass(frozen=True, eq=False)
class Drafted:
    """A guessed token, in the target's vocabulary.

    Attributes:
        logits: ``[vocabulary]``, the draft's own, shaped as the target's are (`Shaping`), before
            temperature; None if the guess came from no distribution, such as a copy out of the
            prompt. With logits, ``token`` is drawn by them (`Sampling.rank`): rules rely on it.
        confidence: the source's own estimate of the chance that the target chooses the token, 0 to
            1: a model's probability (`Sampling.rank`); of a copy, the share of this token among
            those that followed the same tokens before. None if the source has none.
        others: its next choices with its confidence in each, the best first.
        matched: of a copy, how many tokens before this one are the same at the place that it is
            copied from; drafted tokens count as if they were part of the text.
    """

    token: int
    logits: Tensor | None = None
    confidence: float | None = None
    others: tuple[tuple[int, float], ...] = ()
    source: Source = Source.MODEL
    matched: int = 0


class Drafter(Protocol):
    """Guesses the continuation of a sequence. Only one thread may call it at a time.

    Sequences of consecutive calls may go back and branch off: a drafter reuses what they share.
    """

    @property
    def prompt_features(self) -> int | None:
        """How many positions of a prompt's end are worth being answered for this drafter.

        None for a drafter that does not read the target's answers, as by default.
        """
        return None

    @property
    def taps(self) -> tuple[int, ...]:
        """The layers of the target whose outputs it reads in place of the answers; none, as by
        default."""
        return ()

    def answered(self, text: Sequence[int], features: Sequence[Feature]) -> None:
        """Take what the target has answered since the last call; ``text`` is committed.

        By default, does nothing.
        """
        return None

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """Return at most ``count`` tokens that may follow ``sequence``."""
        ...

    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """Return at most ``count`` tokens for each path, that may follow ``text`` and the path.

        ``text`` is committed; the paths are drafted. By default, drafts one path after the other.
        """
        return [self.draft([*text, *path], count) for path in paths]
