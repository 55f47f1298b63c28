"""Statistics of a text, of which a test names what it is about."""

from dataclasses import replace
from typing import Any

from swarm.client.meter import Meter, TextFacts
from swarm.decoding.counts import Counts
from swarm.outputs import Stats, TimeShare

FACTS = TextFacts(
    prompt_tokens=3,
    bytes_sent=0,
    bytes_received=0,
    seed=None,
    exact=True,
    rule="strict",
    draft_error=None,
    finish_reason="length",
)
NO_TIME = TimeShare(links=0.0, stages=0.0, judging=0.0, drafting=0.0, waiting=0.0)


def text_stats(**changed: Any) -> Stats:
    """Return the statistics of a text of no token, with some of them changed."""
    return replace(Meter(clock=lambda: 0.0).stats(Counts(), FACTS), **changed)


def time_share(**parts: float) -> TimeShare:
    """Return shares of time; what no part is given is waiting."""
    return replace(NO_TIME, **parts, waiting=1 - sum(parts.values()))
