"""A local file that holds some byte ranges of a remote one, and says which.

The file is sparse: what it does not hold takes no room. Ranges are written down when they are on
disk, so that an interrupted download goes on where it stopped.
"""

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

Range = tuple[int, int]
"""The bytes from the first number to before the second."""


class SparseFile:
    """Some ranges of a file of `size` bytes. Use it from one thread at a time.

    Several processes may hold the same file: at worst, they fetch a range twice.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Raises OSError."""
        self.path = path
        self._book = path.with_name(f"{path.name}.ranges.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != size:
            self._book.unlink(missing_ok=True)
            empty = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            with empty.open("wb") as file:
                file.truncate(size)
            empty.replace(path)

    def missing(self, wanted: Iterable[Range]) -> list[Range]:
        """Return those parts of the ranges that are not held, in ascending order."""
        held = self._held()
        missing = []
        for start, stop in joined(wanted):
            for begin, end in held:
                if end <= start or begin >= stop:
                    continue
                if begin > start:
                    missing.append((start, begin))
                start = max(start, end)
            if start < stop:
                missing.append((start, stop))
        return missing

    def write(self, start: int, chunks: Iterable[bytes]) -> None:
        """Write a range's bytes, and what the chunks gave of it if they end with an exception.

        Raises:
            OSError: if the disk is full, or cannot be written.
            Exception: what the chunks raise.
        """
        end = start
        with self.path.open("r+b") as file:
            file.seek(start)
            try:
                for chunk in chunks:
                    file.write(chunk)
                    end += len(chunk)
            finally:
                file.flush()
                os.fsync(file.fileno())
                if end > start:
                    self._hold((start, end))

    def _held(self) -> list[Range]:
        try:
            content = json.loads(self._book.read_text("utf-8"))
            return joined((int(start), int(stop)) for start, stop in content)
        except (OSError, ValueError, TypeError):
            return []

    def _hold(self, more: Range) -> None:
        temporary = self._book.with_name(f"{self._book.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.write_text(json.dumps(joined([*self._held(), more])), "utf-8")
        temporary.replace(self._book)


def joined(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """Return the ranges in ascending order, as one where they touch or lie `gap` bytes apart."""
    result: list[Range] = []
    for start, stop in sorted(ranges):
        if result and start <= result[-1][1] + gap:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result
