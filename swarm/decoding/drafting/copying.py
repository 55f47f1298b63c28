"""Drafting without a model: copies what followed the same tokens before."""

from collections.abc import Sequence

from swarm.decoding.drafting.drafter import Drafted, Drafter, Source
from swarm.decoding.drafting.earlier import EarlierTexts
from swarm.decoding.drafting.prefix import common_prefix
from swarm.decoding.drafting.suffixes import NO_MATCH, Match, SuffixAutomaton

FOLLOWERS = 3  # tokens that followed a match, that are returned
REACH = 64  # last tokens of the text that are looked up in earlier ones that grew


class CopyDrafter(Drafter):
    """Copies out of prompt and output, and out of earlier texts (Saxena 2023, "Prompt Lookup
    Decoding"; Oliaro et al. 2024, "SuffixDecoding", arXiv 2411.04975).

    Behind the longest run of last tokens that occurred before, it drafts what followed it most
    often. One token is enough: how likely such a copy is right, the client learns (`Confidence`).
    Drafted tokens count as if they were part of the text; so a copy goes on at any length,
    with ever longer matches, and a repetition beyond its own end.

    Args:
        stop_ids: tokens behind which nothing is drafted.
        earlier: texts that end before this one begins; it may grow meanwhile.
    """

    def __init__(
        self, stop_ids: frozenset[int] = frozenset(), earlier: EarlierTexts | None = None
    ) -> None:
        self.stop_ids = stop_ids
        self._earlier = earlier
        self._begin()

    def _begin(self) -> None:
        self._text: list[int] = []
        self._own = SuffixAutomaton()
        # How much of the end of the text occurs in earlier ones, and how long these were then.
        self._elsewhere: dict[SuffixAutomaton, tuple[Match, int]] = {}

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft` and `draft_each`."""
        return self.draft_each(sequence, [()], count)[0]

    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """See `Drafter.draft_each`. The guesses have no logits.

        A text that is not continued but replaced is read anew.
        """
        self._follow(text)
        return [self._continue(path, count) for path in paths]

    def _follow(self, text: Sequence[int]) -> None:
        """Add to what is known of the text what it grew by."""
        same = common_prefix(self._text, text)
        if same < len(self._text):
            self._begin()
            same = 0
        grown = text[same:]
        for token in grown:
            self._own.append(token)
        self._text += grown
        parts = self._earlier.parts if self._earlier else ()
        self._elsewhere = {runs: (self._find(runs, grown), len(runs)) for runs in parts}

    def _find(self, runs: SuffixAutomaton, grown: Sequence[int]) -> Match:
        """Return how much of the end of the text occurs in earlier ones."""
        match, length = self._elsewhere.get(runs, (NO_MATCH, 0))
        if length == len(runs):
            return _walk(runs, match, grown)
        return _walk(runs, NO_MATCH, self._text[-REACH:])  # they grew meanwhile

    def _continue(self, path: Sequence[int], count: int) -> list[Drafted]:
        ends = {runs: end for runs, (end, _) in self._elsewhere.items()}
        matches = {
            runs: _walk(runs, end, path) for runs, end in {self._own: self._own.end, **ends}.items()
        }
        drafted: list[Drafted] = []
        while len(drafted) < count:
            matches = {runs: runs.continued(match) for runs, match in matches.items()}
            runs = max(matches, key=lambda each: matches[each].length)  # its own, if as long
            if not matches[runs].length:
                break
            guess = _guess(runs, matches[runs])
            drafted.append(guess)
            if guess.token in self.stop_ids:
                break
            matches = {runs: runs.walk(match, guess.token) for runs, match in matches.items()}
        return drafted


def _walk(runs: SuffixAutomaton, match: Match, tokens: Sequence[int]) -> Match:
    for token in tokens:
        match = runs.walk(match, token)
    return match


def _guess(runs: SuffixAutomaton, match: Match) -> Drafted:
    following = runs.following(match)
    total = sum(times for _, times in following)
    (token, share), *others = ((token, times / total) for token, times in following[:FOLLOWERS])
    return Drafted(token, None, share, tuple(others), Source.COPY, match.length)
