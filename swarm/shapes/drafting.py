"""A draft model whose cost is real, and whose guesses are right by chance."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from swarm.decoding.drafting.drafter import Drafted, Drafter
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.model.drafts.choice import Draft
from swarm.model.drafts.draft import DraftModel
from swarm.model.heads.loading import FeatureDraft
from swarm.shapes.script import Guesser


class LuckyDrafter(Drafter):
    """Lets a drafter work, and replaces what it guesses.

    Every token is asked for by itself: so the drafter goes on from the guess that took the place of
    its own, and reads as much as if it had made it.
    """

    def __init__(self, drafter: Drafter, guesser: Guesser) -> None:
        self._drafter = drafter
        self._guesser = guesser

    @property
    def prompt_features(self) -> int | None:
        """See `Drafter.prompt_features`."""
        return self._drafter.prompt_features

    @property
    def taps(self) -> tuple[int, ...]:
        """See `Drafter.taps`."""
        return self._drafter.taps

    def answered(self, text: Sequence[int], features: Sequence[Feature]) -> None:
        """See `Drafter.answered`."""
        self._drafter.answered(text, features)

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft`."""
        return self.draft_each(sequence, [()], count)[0]

    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """See `Drafter.draft_each`."""
        lines = [list(path) for path in paths]
        drafted: list[list[Drafted]] = [[] for _ in paths]
        growing = list(range(len(paths)))
        for _ in range(count):
            guesses = self._drafter.draft_each(text, [lines[place] for place in growing], 1)
            growing = [place for place, own in zip(growing, guesses, strict=True) if own]
            for place, [own] in zip(growing, filter(None, guesses), strict=True):
                guess = self._replaced(own, text, len(text) + len(lines[place]))
                drafted[place].append(guess)
                lines[place].append(guess.token)
            if not growing:
                break
        return drafted

    def _replaced(self, own: Drafted, text: Sequence[int], position: int) -> Drafted:
        (token, confidence), *others = self._guesser.choices(text, position)
        return replace(own, token=token, confidence=confidence, others=tuple(others))


@dataclass(frozen=True, kw_only=True)
class LuckyModel(DraftModel):
    """A draft model with `LuckyDrafter`s."""

    guesser: Guesser

    def drafter(self, sampling: Sampling, shaping: Shaping, stop_ids: frozenset[int]) -> Drafter:
        """See `DraftModel.drafter`."""
        return LuckyDrafter(super().drafter(sampling, shaping, stop_ids), self.guesser)


@dataclass(frozen=True, kw_only=True)
class LuckyHead(FeatureDraft):
    """A head that drafts with `LuckyDrafter`s."""

    guesser: Guesser

    def drafter(self, sampling: Sampling, shaping: Shaping, stop_ids: frozenset[int]) -> Drafter:
        """See `FeatureDraft.drafter`."""
        return LuckyDrafter(super().drafter(sampling, shaping, stop_ids), self.guesser)


def lucky(draft: Draft, guesser: Guesser) -> Draft:
    """Return a draft that costs what this one does, and guesses by luck."""
    own = {each.name: getattr(draft, each.name) for each in fields(draft)}
    if isinstance(draft, FeatureDraft):
        return LuckyHead(**own, guesser=guesser)
    return LuckyModel(**own, guesser=guesser)
