"""Where the end of a text occurred before, however long it is: a suffix automaton.

Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text". Its states are the
sets of runs of tokens that end at the same places; so the state of a run knows what followed it,
wherever it occurred. A token costs the same to add, in the mean, whatever the text.
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

ROOT = 0  # the state of the empty run
NOWHERE = -1
# Shorter runs that end where a token is added, whose occurrences are counted. Texts of a language
# have fewer; a text of one token has as many as tokens, and its shorter runs tell nothing new.
MOST_COUNTED = 32


class Match(NamedTuple):
    """A run of tokens that occurs: its state, and how long it is."""

    state: int
    length: int


NO_MATCH = Match(ROOT, 0)


class SuffixAutomaton:
    """All runs of tokens of a text, which grows.

    Memory: less than two states a token, of about 50 bytes each, and 300 bytes for each that more
    than one token follows (`states`); 130 bytes a token in English texts.

    Tokens are at least 0. Between texts that have nothing to do with each other stands a gap
    (`break_off`): no run goes across.
    """

    def __init__(self) -> None:
        self._longest = array("q", [0])  # run of the state
        self._link = array("q", [NOWHERE])  # state of the longest suffix that occurs elsewhere too
        self._count = array("q", [0])  # occurrences
        self._latest = array("q", [0])  # the place after the last of them
        # Most states are followed by one token; the others have a table.
        self._token = array("q", [NOWHERE])
        self._target = array("q", [NOWHERE])
        self._targets: dict[int, dict[int, int]] = {}
        self._last = ROOT
        self._length = 0

    def __len__(self) -> int:
        """How many tokens were added."""
        return self._length

    @property
    def states(self) -> int:
        return len(self._longest)

    @property
    def end(self) -> Match:
        """The longest run at the end of the text that occurs elsewhere in it too."""
        link = self._link[self._last]
        return NO_MATCH if link == NOWHERE else Match(link, self._longest[link])

    def append(self, token: int) -> None:
        """Add a token behind the text."""
        self._length += 1
        state = self._state(self._longest[self._last] + 1, ROOT)
        shorter = self._last
        while shorter != NOWHERE and self._follow(shorter, token) == NOWHERE:
            self._connect(shorter, token, state)
            shorter = self._link[shorter]
        if shorter != NOWHERE:
            self._link[state] = self._split(shorter, token)
        self._last = state
        self._note(state)

    def break_off(self) -> None:
        """Begin another text."""
        self._last = ROOT

    def walk(self, match: Match, token: int) -> Match:
        """Return the longest run that ends with ``token`` behind a suffix of a match."""
        state, length = match
        while (target := self._follow(state, token)) == NOWHERE:
            state = self._link[state]
            if state == NOWHERE:
                return NO_MATCH
            length = self._longest[state]
        return Match(target, length + 1)

    def continued(self, match: Match) -> Match:
        """Return the longest suffix of a match that a token follows somewhere."""
        state, length = match
        while state != ROOT and self._token[state] == NOWHERE:
            state = self._link[state]
            length = self._longest[state]
        return Match(state, length)

    def following(self, match: Match) -> list[tuple[int, int]]:
        """Return what follows the run of a match, each with how often; the most frequent first, and
        of equal ones the latest."""
        found = [
            (self._count[target], self._latest[target], token)
            for token, target in self._transitions(match.state)
        ]
        return [(token, count) for count, _, token in sorted(found, reverse=True)]

    def _state(self, longest: int, link: int) -> int:
        self._longest.append(longest)
        self._link.append(link)
        self._count.append(0)
        self._latest.append(0)
        self._token.append(NOWHERE)
        self._target.append(NOWHERE)
        return len(self._longest) - 1

    def _split(self, shorter: int, token: int) -> int:
        """Return the state of exactly the longest run of ``shorter`` and a token behind it."""
        state = self._follow(shorter, token)
        longest = self._longest[shorter] + 1
        if self._longest[state] == longest:
            return state
        clone = self._state(longest, self._link[state])
        self._count[clone] = self._count[state]
        self._latest[clone] = self._latest[state]
        for each, target in self._transitions(state):
            self._connect(clone, each, target)
        self._link[state] = clone
        while shorter != NOWHERE and self._follow(shorter, token) == state:
            self._connect(shorter, token, clone)
            shorter = self._link[shorter]
        return clone

    def _note(self, state: int) -> None:
        """Count an occurrence of all runs that end where the text ends."""
        for _ in range(MOST_COUNTED):
            self._count[state] += 1
            self._latest[state] = self._length
            state = self._link[state]
            if state == ROOT:
                break

    def _follow(self, state: int, token: int) -> int:
        if self._token[state] == token:
            return self._target[state]
        return self._targets[state].get(token, NOWHERE) if state in self._targets else NOWHERE

    def _connect(self, state: int, token: int, target: int) -> None:
        if self._token[state] in (NOWHERE, token):
            self._target[state] = target
            self._token[state] = token
        else:
            self._targets.setdefault(state, {})[token] = target

    def _transitions(self, state: int) -> Iterator[tuple[int, int]]:
        if self._token[state] != NOWHERE:
            yield self._token[state], self._target[state]
        yield from self._targets.get(state, {}).items()
