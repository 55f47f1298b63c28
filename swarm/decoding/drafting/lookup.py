"""Drafting without a model: copies what followed the last few tokens when they occurred before."""

from collections.abc import Sequence

from swarm.decoding.drafting.drafter import Drafted, Drafter, Source
from swarm.decoding.drafting.model import common_prefix


class LookupDrafter(Drafter):
    """Copies out of prompt and output (Saxena 2023, "Prompt Lookup Decoding").

    Looks up the longest run of last tokens that occurred before, and drafts what followed its
    latest occurrence. Where that reaches the end of the sequence, it goes on with its own copy (as
    LZ77 does), so that a repetition is drafted at any length.

    Keeps every run's latest place, and for each token the places that it replaced. So to add a
    token or to take it back costs the same however long the sequence is. Memory:
    ``max_match - min_match + 1`` entries for each token, about half a kilobyte by default.

    Args:
        min_match: the fewest tokens that must match; below 2 nearly every token "occurred before".
        max_match: the most tokens compared; longer matches predict no better.
        stop_ids: tokens behind which nothing is drafted.

    Raises:
        ValueError: unless 1 <= min_match <= max_match.
    """

    def __init__(
        self, min_match: int = 2, max_match: int = 4, stop_ids: frozenset[int] = frozenset()
    ) -> None:
        if not 1 <= min_match <= max_match:
            given = f"min_match = {min_match} and max_match = {max_match}"
            raise ValueError(f"{given}: give 1 <= min_match <= max_match")
        self.min_match = min_match
        self.max_match = max_match
        self.stop_ids = stop_ids
        self._seen: list[int] = []
        self._latest: dict[tuple[int, ...], int] = {}  # run: where its latest occurrence ends
        # Entry i: what the runs that end at i + 1 had in _latest before.
        self._replaced: list[list[int | None]] = []

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft`. The guesses have no logits."""
        self._follow(sequence)
        runs = reversed(self._runs(len(sequence)))
        found = ((self._latest[run], len(run)) for run in runs if run in self._latest)
        end, matched = next(found, (None, 0))
        if end is None:
            return []
        tokens = self._seen[end : end + count]
        while len(tokens) < count:
            tokens.append(tokens[end - len(sequence)])
        stop = next((i for i, token in enumerate(tokens, 1) if token in self.stop_ids), count)
        return [
            Drafted(token, source=Source.COPY, matched=matched + place)
            for place, token in enumerate(tokens[:stop])
        ]

    def _follow(self, sequence: Sequence[int]) -> None:
        """Index every run of ``sequence`` but those that end where it ends."""
        same = common_prefix(self._seen, sequence)
        indexed = max(0, len(sequence) - 1)
        while len(self._replaced) > min(same, indexed):
            self._forget()
        self._seen[same:] = sequence[same:]
        while len(self._replaced) < indexed:
            self._remember()

    def _remember(self) -> None:
        end = len(self._replaced) + 1
        runs = self._runs(end)
        self._replaced.append([self._latest.get(run) for run in runs])
        self._latest.update(dict.fromkeys(runs, end))

    def _forget(self) -> None:
        for run, before in zip(self._runs(len(self._replaced)), self._replaced.pop(), strict=True):
            if before is None:
                del self._latest[run]
            else:
                self._latest[run] = before

    def _runs(self, end: int) -> list[tuple[int, ...]]:
        """Return the runs that end at ``end``, the shortest first."""
        lengths = range(self.min_match, min(self.max_match, end) + 1)
        return [tuple(self._seen[end - length : end]) for length in lengths]
