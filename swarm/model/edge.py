"""The edge to the libraries that read and build models: their exceptions become our sentences.

Files of strangers reach these libraries. Which exception a damaged file raises is not specified and
changes with their versions, so any exception counts; none of our code runs inside.
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
    """While open, turn an exception of a library into ``sentence(reason)``.

    The reason is the exception's message on one line. Our own errors and those of memory pass
    unchanged. Meanwhile transformers logs nothing.
    """
    try:
        with QUIET:
            yield
    except (SwarmError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise sentence(reason(error)) from error


def reason(error: BaseException) -> str:
    """Return an exception's message on one line: its first line, or all if that ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next(iter(lines), "")
    if text.endswith(":"):
        text = " ".join(lines)
    if isinstance(error, (KeyError, AttributeError, TypeError, AssertionError)) or not text:
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return text if len(text) <= MAX_REASON_CHARS else text[:MAX_REASON_CHARS] + "..."


class Quiet:
    """While open, transformers logs nothing: our sentence has its message.

    Several threads may open it. With debug logging, transformers logs as usual.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._level = logging.WARNING  # of transformers, before it was opened

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
