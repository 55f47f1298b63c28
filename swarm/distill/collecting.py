"""Filling a corpus: the target writes batch after batch, until there is enough or time is up."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from swarm.distill.corpus import Corpus
from swarm.distill.texts import TargetText

AT_ONCE = 48  # prompts that are continued side by side


class Author(Protocol):
    """The target, in this process or behind a swarm."""

    def write(
        self, prompts: Sequence[Sequence[int]], wrote: Callable[[int], None]
    ) -> Iterable[TargetText]:
        """Continue prompts, and return the texts with the target's states, in any order.

        Args:
            wrote: called now and then with the number of new tokens since the last call.
        """
        ...


@dataclass(frozen=True)
class Enough:
    """When a corpus is complete.

    Attributes:
        tokens: that the target has written.
        seconds: of writing.
    """

    tokens: int
    seconds: float


def collect(
    corpus: Corpus,
    author: Author,
    prompts: Iterable[Sequence[int]],
    enough: Enough,
    show: Callable[[float, float], None] = lambda share, rate: None,
) -> None:
    """Fill a corpus. It goes on behind the prompts that are in it.

    Args:
        prompts: all of them, those that were continued before an interruption included.
        show: called with the share that is done and the tokens written a second.
    """
    waiting: Iterator[Sequence[int]] = islice(iter(prompts), corpus.texts, None)
    began = time.monotonic()
    before = corpus.written
    new = 0

    def wrote(tokens: int) -> None:
        nonlocal new
        new += tokens
        seconds = time.monotonic() - began
        share = max((before + new) / enough.tokens, seconds / enough.seconds)
        show(min(1.0, share), new / max(seconds, 1e-6))

    while corpus.written < enough.tokens and time.monotonic() - began < enough.seconds:
        batch = list(islice(waiting, AT_ONCE))
        if not batch:
            return
        corpus.append(list(author.write(batch, wrote)))
