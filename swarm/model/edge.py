"""The edge to the libraries that read and build models: what they raise there becomes a sentence of ours.

Files of strangers reach these libraries, and what they raise for a damaged one is theirs to choose and changes with
their versions: any exception counts, and nothing of ours runs inside.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from swarm.errors import SwarmError

MAX_REASON_CHARS = 300  # of a library's message, which may quote the whole file


@contextmanager
def explained(sentence: Callable[[str], SwarmError]) -> Iterator[None]:
    """While open, an exception of a library becomes ``sentence(reason)``, with what it says on one line.

    Errors of ours and memory that ran out pass as they are.
    """
    try:
        yield
    except (SwarmError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise sentence(reason(error)) from error


def reason(error: BaseException) -> str:
    """What an exception says, on one line: the first one, and those behind it that it announces by a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next(iter(lines), "")
    if said.endswith(":"):
        said = " ".join(lines)
    if isinstance(error, (KeyError, AttributeError, TypeError, AssertionError)) or not said:
        said = f"{type(error).__name__}: {said}".rstrip(": ")
    return said if len(said) <= MAX_REASON_CHARS else said[:MAX_REASON_CHARS] + "..."
