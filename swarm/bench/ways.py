"""The ways of decoding that are compared."""

from dataclasses import dataclass, field

from swarm.request import Options


@dataclass(frozen=True)
class Way:
    """A name, and the options that make it.

    Attributes:
        exact: says token for token what plain decoding says.
    """

    name: str
    options: Options = field(default_factory=lambda: Options())
    exact: bool = True

    @property
    def waits(self) -> bool:
        """Whether every window is waited for."""
        return self.options.get("depth") == 1


def window_of(size: int) -> Way:
    """The paper's way: one window in flight, and wait."""
    return Way(f"window of {size}", {"window": size, "depth": 1})


def ways_of(has_draft: bool, lookup: bool) -> tuple[Way, ...]:
    """What is compared: with a draft model, and with a lookup, alone or before it."""
    if not has_draft:
        return PLAIN, PAPERS_WINDOW, window_of(16), LOOKUP
    return (*WITH_DRAFT, BOTH) if lookup else WITH_DRAFT


PLAIN = Way("plain", {"window": 0})
STREAMING = Way("streaming", {"branches": 1})
BRANCHES = Way("streaming, branches")
ADAPTIVE = Way("streaming, adaptive", {"verify": "adaptive"}, exact=False)
PAPERS_WINDOW = window_of(8)
LOOKUP = Way("streaming, lookup")
BOTH = Way("streaming, draft and lookup", {"lookup": True})
WITH_DRAFT = (PLAIN, PAPERS_WINDOW, window_of(16), STREAMING, BRANCHES, ADAPTIVE)
