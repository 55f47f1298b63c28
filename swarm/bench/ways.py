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
    """Return the way of DSD (arXiv 2511.11733): one window in flight."""
    return Way(f"window of {size}", {"window": size, "depth": 1})


def ways_of(has_draft: bool, lookup: bool | None) -> tuple[Way, ...]:
    """Return the ways to compare.

    Args:
        lookup: whether to look tokens up in earlier text; None does without a draft model.
    """
    if has_draft:
        return (*WITH_DRAFT, BOTH) if lookup else WITH_DRAFT
    return (PLAIN,) if lookup is False else (PLAIN, PAPERS_WINDOW, window_of(16), LOOKUP)


PLAIN = Way("plain", {"window": 0})
STREAMING = Way("streaming", {"branches": 1})
BRANCHES = Way("streaming, branches")
ADAPTIVE = Way("streaming, adaptive", {"verify": "adaptive"}, exact=False)
PAPERS_WINDOW = window_of(8)
LOOKUP = Way("streaming, lookup")
BOTH = Way("streaming, draft and lookup", {"lookup": True})
WITH_DRAFT = (PLAIN, PAPERS_WINDOW, window_of(16), STREAMING, BRANCHES, ADAPTIVE)
