"""Several drafters as one."""

from collections.abc import Sequence

from swarm.decoding.drafting.drafter import Drafted, Drafter


class Cascade(Drafter):
    """Asks its drafters in turn; each goes on where the one before it ended.

    The cheapest comes first: with a `LookupDrafter` before a `ModelDrafter`, the model drafts only
    what is not a copy. It reads the copied tokens in one pass when it is asked again.

    Args:
        stop_ids: tokens behind which nothing is drafted.
    """

    def __init__(self, drafters: Sequence[Drafter], stop_ids: frozenset[int] = frozenset()) -> None:
        self.drafters = tuple(drafters)
        self.stop_ids = stop_ids

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft`."""
        return self.draft_each(sequence, [()], count)[0]

    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """See `Drafter.draft_each`."""
        drafted: list[list[Drafted]] = [[] for _ in paths]
        for drafter in self.drafters:
            short = [i for i, guesses in enumerate(drafted) if self._may_grow(guesses, count)]
            if not short:
                break
            longer = [(*paths[i], *(guess.token for guess in drafted[i])) for i in short]
            missing = count - min(len(drafted[i]) for i in short)
            for i, more in zip(short, drafter.draft_each(text, longer, missing), strict=True):
                drafted[i] += more[: count - len(drafted[i])]
        return drafted

    def _may_grow(self, drafted: list[Drafted], count: int) -> bool:
        return len(drafted) < count and not (drafted and drafted[-1].token in self.stop_ids)
