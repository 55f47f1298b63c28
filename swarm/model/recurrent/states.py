"""The states of recurrent layers in one session, kept at some rows that its text may return to.

Keys and values of a row can be cut off; a state has read all rows before it, and none can be taken
out again. So older states stay: a rollback goes back to the newest of them that has not read too
much, and the span computes the few rows behind it once more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

MAX_SNAPSHOTS = 4  # of one session, the newest included: each is as large as all states together

StateKey = tuple[int | str, ...]
"""Which state: the layer, the kind, and the number among those of its kind."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All states after the first `row` rows. Its tensors are never written again."""

    row: int
    tensors: Mapping[StateKey, torch.Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


class States:
    """States of one session, and the inputs of the rows that may have to be computed once more.

    A forward goes on from the newest snapshot and becomes the next one, so a text that only grows
    costs nothing extra. Snapshots before the root are dropped but for the newest of them: a session
    never rolls back behind its root, except to its beginning. If there are too many, the one whose
    loss makes the shortest replay goes. Use it from one thread at a time.

    Args:
        most: snapshots, two or more.
    """

    def __init__(self, most: int = MAX_SNAPSHOTS) -> None:
        self._most = most
        self._snapshots = [Snapshot(0)]
        self._new: dict[StateKey, torch.Tensor] = {}
        # Inputs of the rows from the oldest snapshot on, [n(, hidden)] each, on the CPU.
        self._inputs: list[torch.Tensor] = []

    @property
    def row(self) -> int:
        """The row from which the next forward computes."""
        return self._snapshots[-1].row

    @property
    def length(self) -> int:
        """Rows held: those up to the newest snapshot, and those to be computed once more."""
        return self._snapshots[0].row + sum(len(inputs) for inputs in self._inputs)

    @property
    def nbytes(self) -> int:
        """Memory held, the inputs included."""
        inputs = sum(inputs.nbytes for inputs in self._inputs)
        return inputs + sum(snapshot.nbytes for snapshot in self._snapshots)

    @property
    def nbytes_each(self) -> int:
        """Memory of one snapshot."""
        return self._snapshots[-1].nbytes

    @property
    def computed(self) -> Mapping[StateKey, torch.Tensor]:
        """What the running forward has computed so far."""
        return self._new

    def reaches(self, row: int) -> bool:
        """Return whether a rollback to this row is possible."""
        return row == 0 or self._snapshots[0].row <= row

    def row_before(self, row: int) -> int:
        """Return the newest row at or before `row` whose states are kept; 0 if there is none."""
        rows = [snapshot.row for snapshot in self._snapshots]
        return max((each for each in rows if each <= row), default=0)

    def place(self, start: int, root: int) -> None:
        """Forget the rows from `start` on, and the snapshots that only rows before `root` need.

        `reaches(start)` must hold; the same call may come again.
        """
        if start == 0:
            self._snapshots = [Snapshot(0)]
        while self._snapshots[-1].row > start:
            self._snapshots.pop()
        oldest = self._snapshots[0].row
        while len(self._snapshots) > 1 and self._snapshots[1].row <= root:
            del self._snapshots[0]
        self._inputs = _between(self._inputs, self._snapshots[0].row - oldest, start - oldest)

    def replayed(self) -> torch.Tensor | None:
        """Return the inputs [n(, hidden)] of the rows from `row` on; None if there are none."""
        first = self._snapshots[0].row
        inputs = _between(self._inputs, self.row - first, self.length - first)
        return torch.cat(inputs) if inputs else None

    # What a forward does, between two placements.

    def begin(self) -> None:
        """Forget what a forward that failed half-way has left."""
        self._new.clear()

    def get(self, key: StateKey) -> torch.Tensor | None:
        """Return a state for a layer that may write into it; None if there is none yet."""
        if key not in self._new:
            kept = self._snapshots[-1].tensors.get(key)
            if kept is None:
                return None
            self._new[key] = kept.clone()
        return self._new[key]

    def put(self, key: StateKey, state: torch.Tensor) -> None:
        """Make a tensor a layer's state. It counts from `advance` on."""
        self._new[key] = state

    def advance(self, inputs: torch.Tensor) -> None:
        """Keep the states of a forward that has read the replayed rows and then `inputs`."""
        self._inputs.append(inputs)
        self._keep(self.length)

    def catch_up(self, rows: int) -> None:
        """Keep the states of a forward that has read the next `rows` of the replayed rows alone."""
        self._keep(self.row + rows)

    def _keep(self, row: int) -> None:
        own = {key: _alone(state) for key, state in self._new.items()}
        self._snapshots.append(Snapshot(row, {**self._snapshots[-1].tensors, **own}))
        self._new = {}
        if len(self._snapshots) > self._most:
            rows = [snapshot.row for snapshot in self._snapshots]
            inner = range(1, len(rows) - 1)
            del self._snapshots[min(inner, key=lambda i: rows[i + 1] - rows[i - 1])]

    def copy(self) -> "States":
        """Return the same states, for a text that parts from this one's."""
        same = States(self._most)
        same._snapshots = list(self._snapshots)
        same._inputs = list(self._inputs)
        return same


def _between(inputs: list[torch.Tensor], start: int, end: int) -> list[torch.Tensor]:
    """Return the rows [start, end) of tensors that lie one after another."""
    kept = []
    row = 0
    for tensor in inputs:
        part = tensor[max(0, start - row) : max(0, end - row)]
        row += len(tensor)
        if len(part):
            kept.append(part)
    return kept


def _alone(state: torch.Tensor) -> torch.Tensor:
    """Return a state that keeps no memory alive but its own."""
    whole = state.untyped_storage().nbytes() == state.nbytes
    return state if whole else state.clone(memory_format=torch.contiguous_format)
