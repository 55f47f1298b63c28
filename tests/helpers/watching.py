"""A watch of forwards that remembers."""

from collections.abc import Iterator
from contextlib import contextmanager


class Watching:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def forward(self) -> Iterator[None]:
        self.told.append("begins")
        yield
        self.told.append("ends")

    def layer(self) -> None:
        self.told.append("layer")
