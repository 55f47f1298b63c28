"""Drafters that choose by the logits of a model, behind several paths at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted, Drafter, Source
from swarm.decoding.drafting.vocabulary import Vocabulary
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping

CHOICES = 4  # choices of the draft returned for a place; plans take fewer


@dataclass(frozen=True, eq=False)
class Chooser:
    """How guesses are chosen by a draft's logits: as the target chooses by its own.

    Attributes:
        vocabulary: translates between the draft's tokens and the target's.
        stop_ids: tokens of the target that end a text.
        source: of the guesses.
    """

    sampling: Sampling
    vocabulary: Vocabulary
    shaping: Shaping = NO_SHAPING
    stop_ids: frozenset[int] = frozenset()
    source: Source = Source.MODEL

    def choose(
        self, predicted: Tensor, text: Sequence[int], paths: Sequence[Sequence[int]]
    ) -> Iterator[Drafted]:
        """Yield the choice behind each path, with the next ones as its `Drafted.others`.

        Args:
            predicted: ``[len(paths), head]``, the draft's own logits, float32, on the CPU.
            text: all committed tokens.
            paths: behind the text, drafted.
        """
        logits = self.vocabulary.project(predicted)
        logits = self.shaping.apply_each(logits, text, paths)
        positions = [len(text) + len(path) for path in paths]
        ranked = self.sampling.rank(logits, positions, CHOICES)
        for row, ((token, confidence), *others) in zip(logits, ranked, strict=True):
            # A copy: a view of one path's row would keep the rows of all paths.
            yield Drafted(token, row.clone(), confidence, tuple(others), self.source)


class PathDrafter(Drafter):
    """What drafters have in common whose `draft_each` is their own."""

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft` and `draft_each`."""
        return self.draft_each(sequence, [()], count)[0]


class HeadDrafter(PathDrafter):
    """What drafters have in common whose model is a head that reads the target's states.

    Args:
        prompt_features: how many positions of a prompt's end it is worth to have answered.
        taps: the layers of the target that the head reads; none for the last one's answers.
    """

    def __init__(self, prompt_features: int = 512, taps: tuple[int, ...] = ()) -> None:
        self._prompt_features = prompt_features
        self._taps = taps

    @property
    def prompt_features(self) -> int:
        """See `Drafter.prompt_features`."""
        return self._prompt_features

    @property
    def taps(self) -> tuple[int, ...]:
        """See `Drafter.taps`."""
        return self._taps
