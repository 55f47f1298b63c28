"""Files that several processes may read and write at the same time."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"  # ends the name of a file that is being written


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a new file in the same folder. At the end it takes the place of ``path``.

    So the file is there whole or not at all, as it was before. Its folder is made if it is missing.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=UNFINISHED)
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder. No other one may be writing."""
    for left in folder.glob(f"*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file as `whole_file` does. Raises OSError."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
