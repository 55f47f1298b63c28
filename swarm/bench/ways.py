"""The ways of decoding that a benchmark compares."""

from dataclasses import dataclass, field

from swarm.request import Options


@dataclass(frozen=True)
class Way:
    """One way of decoding.

    Attributes:
        exact: it gives the tokens of plain decoding.
    """

    name: str
    options: Options = field(default_factory=lambda: Options())
    exact: bool = True

    @property
    def waits(self) -> bool:
        """Whether the client waits for every window's answer."""
        return self.options.get("depth") == 1


def window_of(size: int) -> Way:
    """Return the way of DSD (arXiv 2511.11733): one window in flight, by the draft model."""
    return Way(f"window of {size}", {"window": size, "depth": 1, "lookup": False})


def ways_of(has_draft: bool, lookup: bool | None) -> tuple[Way, ...]:
    """Return the ways to compare.

    Args:
        lookup: as `Options.lookup`; False leaves out the ways that copy earlier text.
    """
    if has_draft:
        return WITH_DRAFT if lookup is False else (*WITH_DRAFT, both(lookup))
    return (PLAIN,) if lookup is False else (PLAIN, *map(by_lookup, (8, 16)), streamed(lookup))


def by_lookup(size: int) -> Way:
    """Return the way of DSD without a draft model."""
    return Way(f"window of {size}", {"window": size, "depth": 1})


def streamed(lookup: bool | None) -> Way:
    """Return the way of a client without a draft model."""
    return Way("streaming, lookup", {"lookup": lookup})


def both(lookup: bool | None) -> Way:
    """Return the way of a client with a draft model."""
    return Way("streaming, draft and lookup", {"lookup": lookup})


PLAIN = Way("plain", {"window": 0})
STREAMING = Way("streaming", {"branches": 1, "lookup": False})
BRANCHES = Way("streaming, branches", {"lookup": False})
ADAPTIVE = Way("streaming, adaptive", {"verify": "adaptive", "lookup": False}, exact=False)
PAPERS_WINDOW = window_of(8)
WITH_DRAFT = (PLAIN, PAPERS_WINDOW, window_of(16), STREAMING, BRANCHES, ADAPTIVE)
