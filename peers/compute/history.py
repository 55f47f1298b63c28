"""Outputs that a peer has sent on, kept for replay to a peer that replaces the next one."""

from torch import Tensor

from swarm.wire.token_tree import Placement

BLOCK_TOKENS = 256  # room grows in whole blocks
HISTORY_BYTES = 1 << 30  # by default: at 8 kB a token, 130,000 tokens of all sessions together


class History:
    """Outputs of one session, on the CPU, in the dtype that travels.

    There is one row for each row of the session's cache.

    Attributes:
        limit: the most rows; the session has reserved them.
        length: rows held now.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.length = 0
        self._rows: Tensor | None = None  # [room, hidden]

    def place(self, placement: Placement) -> None:
        """Keep the rows that the placement keeps, as the cache does, and forget the rest."""
        start, keep = placement.start, placement.keep
        if keep and self._rows is not None:
            self._rows[start - len(keep) : start] = self._rows[list(keep)]
        self.length = start

    def add(self, output: Tensor) -> None:
        """Append ``output`` ``[tokens, hidden]``; there must be room for it."""
        end = self.length + output.shape[0]
        if self._rows is None or self._rows.shape[0] < end:
            self._rows = self._grown(output, end)
        self._rows[self.length : end] = output
        self.length = end

    def fork(self, source: "History", placement: Placement) -> None:
        """Copy the rows that a placement keeps of another history into this one, which is empty."""
        start, keep = placement.start, placement.keep
        self.add(source.rows(slice(0, start - len(keep))))
        if keep:
            self.add(source.rows(slice(None))[list(keep)])

    def rows(self, which: slice) -> Tensor:
        """Return some of the rows, ``[n, hidden]``. Raise IndexError if nothing was added yet."""
        if self._rows is None:
            raise IndexError("nothing was added yet")
        return self._rows[: self.length][which]

    @property
    def nbytes(self) -> int:
        """Memory held, room for growth included."""
        return 0 if self._rows is None else self._rows.nbytes

    def _grown(self, output: Tensor, needed: int) -> Tensor:
        """Return a copy with room for ``needed`` rows.

        Within the limit there is room for an eighth more than are held, which keeps copying cheap.
        """
        room = -(-max(needed, self.length * 9 // 8) // BLOCK_TOKENS) * BLOCK_TOKENS
        grown = output.new_empty((min(room, self.limit), output.shape[1]))
        if self._rows is not None:
            grown[: self.length] = self._rows[: self.length]
        return grown


class HistoryBudget:
    """Bytes for the histories of all sessions.

    A session that does not fit has no history. When its next peer fails, its client has to replace
    this peer, too.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.free_bytes = total_bytes
        self._held: dict[History, int] = {}

    def open(self, rows: int, row_bytes: int) -> History | None:
        """Return a history for that many rows; None if there is no room for them all."""
        nbytes = rows * row_bytes
        if nbytes > self.free_bytes:
            return None
        history = History(rows)
        self._held[history] = nbytes
        self.free_bytes -= nbytes
        return history

    def close(self, history: History | None) -> None:
        """Give the bytes of a history back. Raise KeyError if it is not open (any more)."""
        if history is not None:
            self.free_bytes += self._held.pop(history)
