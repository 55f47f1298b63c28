"""Files of published data: JSON lines, perhaps packed by gzip."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import UsageError

MAX_BYTES = 64 << 20  # unpacked; the published files are below 10 MB


@dataclass(eq=False)
class UnreadableData(UsageError):
    """A file, or one line of it, that cannot be used; `problem` says why."""

    file: Path
    problem: str
    line: int | None = None

    def __str__(self) -> str:
        where = "" if self.line is None else f", line {self.line},"
        return f"{self.file}{where} {self.problem}"


def read_json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line that is not empty, from 1 on, and its object.

    Raises:
        UnreadableData: for a file that cannot be read or is too large, and for a line that is no
            JSON object.
    """
    for number, line in enumerate(_text_of(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise UnreadableData(file, "is no JSON object", number)
        yield number, entry


def _text_of(file: Path) -> str:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableData(file, f"cannot be read ({error})") from None
    if len(content) > MAX_BYTES:
        raise UnreadableData(file, f"is larger than {MAX_BYTES >> 20} MB")
    return content.decode("utf-8", errors="replace")
