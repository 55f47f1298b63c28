"""How often each source's drafts are right, by how far behind the last answer they were drafted.

The *lag* of a drafted token is `Guess.lag`: 1 for the first token that the answers known at that
time do not decide. Only tokens that are decided count, so all before them were right: the rate at
lag k is the conditional acceptance q_k of the literature.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_LAG = 64  # tokens further behind an answer are rare, and are not counted


@dataclass(frozen=True)
class SourceAcceptance:
    """The first choices of one source of drafts, by lag.

    Attributes:
        judged: drafted tokens that were decided; entry i is of lag i + 1.
        accepted: of these, those that became part of the text.
    """

    source: str
    judged: tuple[int, ...]
    accepted: tuple[int, ...]


def _by_source_and_lag() -> defaultdict[str, Counter[int]]:
    return defaultdict(Counter)


@dataclass
class AcceptanceCounts:
    """Counts decided drafts."""

    _judged: defaultdict[str, Counter[int]] = field(default_factory=_by_source_and_lag)
    _accepted: defaultdict[str, Counter[int]] = field(default_factory=_by_source_and_lag)

    def count(self, source: str, lag: int, accepted: bool) -> None:
        """Count a source's first choice at a position that was decided; ``lag`` is at least 1."""
        if lag <= MAX_LAG:
            self._judged[source][lag] += 1
            self._accepted[source][lag] += accepted

    def add(self, source: SourceAcceptance) -> None:
        """Add what was counted elsewhere."""
        self._judged[source.source].update(dict(enumerate(source.judged, 1)))
        self._accepted[source.source].update(dict(enumerate(source.accepted, 1)))

    @property
    def by_source(self) -> tuple[SourceAcceptance, ...]:
        """The counts of each source, in alphabetical order."""
        return tuple(
            SourceAcceptance(
                source,
                tuple(judged[lag] for lag in range(1, max(judged) + 1)),
                tuple(self._accepted[source][lag] for lag in range(1, max(judged) + 1)),
            )
            for source, judged in sorted(self._judged.items())
        )


def together(texts: Iterable[Iterable[SourceAcceptance]]) -> tuple[SourceAcceptance, ...]:
    """Return the sums over several texts, by source."""
    sums = AcceptanceCounts()
    for text in texts:
        for source in text:
            sums.add(source)
    return sums.by_source
