"""Importing large libraries at the start of a program, without a search for garbage in them."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import what a program needs, and keep it out of all later garbage collections.

    torch, transformers and hivemind make a million objects, nearly all of which stay. Searching
    them takes a sixth of the time of their import. Later, each full collection would stop the event
    loop for half a second. For our own programs only: objects of a user's program are not ours to
    keep.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()
