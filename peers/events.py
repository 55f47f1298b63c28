"""What a peer tells its operator: sentences for people, and the facts in them for programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class News:
    """Something happened.

    Attributes:
        event: what, in one word.
        facts: plain data of the sentence.
    """

    event: str
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"event": self.event, **self.facts, "text": self.sentence}


Say = Callable[[News], None]  # tells an operator
