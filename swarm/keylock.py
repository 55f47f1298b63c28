"""A lock on a key file, so that one key is one peer.

The system releases it however its process ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swarm.errors import IdentityError

try:
    import fcntl
except ImportError:  # a system without these locks
    fcntl = None  # type: ignore[assignment]


@dataclass(eq=False)
class KeyInUse(IdentityError):
    """Another process uses this key: other peers could not distinguish the two.

    `subject` is the key file or the peer id, `option` that by which a command takes another key.
    """

    problem: str = field(init=False)
    where: str
    option: str = "--key"

    def __post_init__(self) -> None:
        self.problem = (
            f"{self.where} uses this key already, and the swarm sees two of one key as one peer:"
            " stop the other one, or give this one a key file of its own"
            f" ({self.option} FILE; one that is not there is made)"
        )
        super().__post_init__()


@contextlib.contextmanager
def held(key_file: Path | None, *, alone: bool) -> Iterator[None]:
    """Lock a key file within the block: `alone`, or shared with others that are not alone.

    None locks nothing.

    The key file itself is locked, so that it may be in a read-only folder. No other file is left
    behind, and a killed process holds no lock.

    Raises:
        KeyInUse: if another process holds the key, and either of the two wants it alone.
        IdentityError: if the file cannot be opened.
    """
    if fcntl is None or key_file is None:
        yield
        return
    try:
        descriptor = os.open(key_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise IdentityError(
            str(key_file), f"cannot read this key file ({error.strerror or error})"
        ) from error
    try:
        _lock(descriptor, key_file, alone)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, key_file: Path, alone: bool) -> None:
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        option = "--key" if alone else "--identity"
        raise KeyInUse(str(key_file), "another process on this computer", option) from None
    except OSError:
        pass  # a file system without locks; the directory's record still shows a second peer
