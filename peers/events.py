"""Events that a peer reports to its operator: sentences for people, facts for programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PeerEvent:
    """One event.

    Attributes:
        event: its kind, in one word.
        facts: the plain data in the sentence.
    """

    event: str
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"event": self.event, **self.facts, "text": self.sentence}


Emit = Callable[[PeerEvent], None]  # tells an operator
