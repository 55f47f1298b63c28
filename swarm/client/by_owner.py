"""What is kept apart for each owner of texts (`Options.owner`)."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByOwner(Generic[T]):
    """One value for each owner, of those whose texts came last. In memory and nowhere else.

    What an owner's texts leave behind, such as the texts themselves, makes later ones faster. It is
    never shared: drafts are checked, so no word would get across, but a text that comes faster
    would tell that someone else had one like it.

    Args:
        make: makes the value of a new owner.
        most: owners that have one; the one that wrote last longest ago is forgotten.
    """

    def __init__(self, make: Callable[[], T], most: int) -> None:
        self._make = make
        self._most = most
        self._values: dict[str, T] = {}

    def __len__(self) -> int:
        """How many owners have a value."""
        return len(self._values)

    def of(self, owner: str) -> T:
        """Return an owner's value."""
        value = self._values.pop(owner) if owner in self._values else self._make()
        self._values[owner] = value
        if len(self._values) > self._most:
            del self._values[next(iter(self._values))]
        return value
