"""Several drafters as one."""

from collections.abc import Sequence

from swarm.decoding.drafting.drafter import Drafted, Drafter


class Cascade:
    """Asks its drafters in turn; each goes on where the one before it had no more to say.

    So the cheapest comes first: with a `LookupDrafter` before a `ModelDrafter`, the model is asked only for what is
    no copy. What it did not draft it reads in one pass when it is asked again.

    Args:
        stop_ids: tokens behind which nothing is drafted.
    """

    def __init__(self, drafters: Sequence[Drafter], stop_ids: frozenset[int] = frozenset()) -> None:
        self.drafters, self.stop_ids = tuple(drafters), stop_ids

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft`."""
        drafted: list[Drafted] = []
        for drafter in self.drafters:
            if len(drafted) >= count or (drafted and drafted[-1].token in self.stop_ids):
                break
            drafted += drafter.draft([*sequence, *(guess.token for guess in drafted)], count - len(drafted))
        return drafted
