"""What a peer has sent on, kept so that it can be sent again: to a peer that takes the place of the
next one."""

from torch import Tensor

from swarm.wire.token_tree import Placement

BLOCK_TOKENS = 256  # room grows in whole blocks
HISTORY_BYTES = 1 << 30  # by default: at 8 kB a token, 130,000 tokens of all sessions together


class History:
    """Outputs of one session: one row for each that its cache holds, in the dtype that travels, on
    the CPU.

    Attributes:
        limit: rows at most, which the session has reserved.
        length: rows held.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.length = 0
        self._rows: Tensor | None = None  # [room, hidden]

    def place(self, placement: Placement) -> None:
        """Keep what the placement keeps, as the cache does, and forget the rest."""
        start, keep = placement.start, placement.keep
        if keep and self._rows is not None:
            self._rows[start - len(keep) : start] = self._rows[list(keep)]
        self.length = start

    def add(self, output: Tensor) -> None:
        """Append ``output`` ``[tokens, hidden]``, for which there must be room."""
        end = self.length + output.shape[0]
        if self._rows is None or self._rows.shape[0] < end:
            self._rows = self._grown(output, end)
        self._rows[self.length : end] = output
        self.length = end

    def rows(self, which: slice) -> Tensor:
        """Some of the rows: ``[n, hidden]``. Raises IndexError if there are none at all."""
        if self._rows is None:
            raise IndexError("nothing was added yet")
        return self._rows[: self.length][which]

    @property
    def nbytes(self) -> int:
        """Memory held, room for growth included."""
        return 0 if self._rows is None else self._rows.nbytes

    def _grown(self, output: Tensor, needed: int) -> Tensor:
        """Room for ``needed`` rows and, within the limit, an eighth more than are held, which keeps
        copying cheap."""
        room = -(-max(needed, self.length * 9 // 8) // BLOCK_TOKENS) * BLOCK_TOKENS
        grown = output.new_empty((min(room, self.limit), output.shape[1]))
        if self._rows is not None:
            grown[: self.length] = self._rows[: self.length]
        return grown


class HistoryBudget:
    """Bytes for the histories of all sessions.

    A session that does not fit has none: its client has to replace the session's peer, too, when
    the next one fails.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = self.free_bytes = total_bytes
        self._held: dict[History, int] = {}

    def open(self, rows: int, row_bytes: int) -> History | None:
        """A history for so many rows, if there is room for them all."""
        nbytes = rows * row_bytes
        if nbytes > self.free_bytes:
            return None
        history = History(rows)
        self._held[history] = nbytes
        self.free_bytes -= nbytes
        return history

    def close(self, history: History | None) -> None:
        """The other half of `open`. Raises KeyError for what is not open (any more)."""
        if history is not None:
            self.free_bytes += self._held.pop(history)
