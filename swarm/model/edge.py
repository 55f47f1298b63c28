"""The edge to the libraries that read and build models: what they raise there becomes a sentence of
ours.

Files of strangers reach these libraries, and what they raise for a damaged one is theirs to choose
and changes with their versions: any exception counts, and nothing of ours runs inside.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging as transformers_logging

from swarm.errors import SwarmError

MAX_REASON_CHARS = 300  # of a library's message, which may quote the whole file

log = logging.getLogger(__name__)


@contextmanager
def explained(sentence: Callable[[str], SwarmError]) -> Iterator[None]:
    """While open, an exception of a library becomes ``sentence(reason)``, with what it says on one
    line.

    Errors of ours and memory that ran out pass as they are. What transformers logs meanwhile is
    left out.
    """
    try:
        with QUIET:
            yield
    except (SwarmError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise sentence(reason(error)) from error


def reason(error: BaseException) -> str:
    """What an exception says, on one line: the first one, and those behind it that it announces by
    a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next(iter(lines), "")
    if said.endswith(":"):
        said = " ".join(lines)
    if isinstance(error, (KeyError, AttributeError, TypeError, AssertionError)) or not said:
        said = f"{type(error).__name__}: {said}".rstrip(": ")
    return said if len(said) <= MAX_REASON_CHARS else said[:MAX_REASON_CHARS] + "..."


class Quiet:
    """While open, transformers logs nothing: what it would say is said by our sentence.

    Several threads may open it.

    When we debug, it logs as ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._level = logging.WARNING  # which it had before the first was opened

    def __enter__(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._level = transformers_logging.get_verbosity()
                if not log.isEnabledFor(logging.DEBUG):
                    transformers_logging.set_verbosity(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                transformers_logging.set_verbosity(self._level)


QUIET = Quiet()
