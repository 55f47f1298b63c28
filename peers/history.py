"""What a peer has sent on, kept so that it can be sent again: to a peer that takes the place of the next one."""

import torch

from swarm.wire.stream import Placement

BLOCK_TOKENS = 256  # room grows in whole blocks


class History:
    """Outputs of one session: one row for each that its cache holds, in the dtype that travels, on the CPU."""

    def __init__(self, limit: int) -> None:
        """``limit``: rows at most, which the session has reserved."""
        self.limit = limit
        self.length = 0
        self._rows: torch.Tensor | None = None  # [room, hidden]

    def add(self, placement: Placement, output: torch.Tensor) -> None:
        """Follow what the cache has done: keep what the placement keeps, and append ``output`` [tokens, hidden]."""
        self.place(placement)
        end = self.length + output.shape[0]
        if self._rows is None or self._rows.shape[0] < end:
            room = min(-(-max(end, self.length * 9 // 8) // BLOCK_TOKENS) * BLOCK_TOKENS, max(self.limit, end))
            grown = output.new_empty((room, output.shape[1]))
            if self._rows is not None:
                grown[: self.length] = self._rows[: self.length]
            self._rows = grown
        self._rows[self.length : end] = output
        self.length = end

    def place(self, placement: Placement) -> None:
        """Keep what the placement keeps, and forget the rest."""
        start, keep = placement.start, placement.keep
        if keep and self._rows is not None:
            self._rows[start - len(keep) : start] = self._rows[list(keep)]
        self.length = start

    def rows(self, which: slice) -> torch.Tensor:
        """Some of the rows: [n, hidden]."""
        assert self._rows is not None  # there are rows
        return self._rows[which]

    @property
    def nbytes(self) -> int:
        return 0 if self._rows is None else self._rows.nbytes


class HistoryBudget:
    """Bytes for the histories of all sessions. One that does not fit is not kept: its client has to start over if the
    next peer fails."""

    def __init__(self, total_bytes: int) -> None:
        self.free_bytes = total_bytes
        self._held: dict[History, int] = {}

    def open(self, rows: int, row_bytes: int) -> History | None:
        """A history for so many rows, if there is room for them all."""
        if rows * row_bytes > self.free_bytes:
            return None
        history = History(rows)
        self._held[history] = rows * row_bytes
        self.free_bytes -= rows * row_bytes
        return history

    def close(self, history: History | None) -> None:
        """The other half of `open`."""
        self.free_bytes += self._held.pop(history, 0) if history is not None else 0
