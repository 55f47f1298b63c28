"""Who is told of a model's forwards, such as one who shares out the cores between programs."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class ForwardWatch(Protocol):
    """Is told, in the thread that computes, where a forward is."""

    def forward(self) -> AbstractContextManager[None]:
        """Return what is open while a forward runs."""
        ...

    def layer(self) -> None:
        """A layer is about to begin."""
        ...


def watched(watch: ForwardWatch | None) -> AbstractContextManager[None]:
    """Return what is open while a forward runs; without a watch, nothing is told."""
    return nullcontext() if watch is None else watch.forward()
