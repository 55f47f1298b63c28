"""Standard streams that are closed, have another encoding than UTF-8, or have lost their reader."""

import io
import os
import sys
from typing import IO

import click


def settle() -> None:
    """Replace closed streams (``>&-``) by /dev/null, and characters of no encoding by ``?``."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nothing(descriptor, "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """Print a line; the program goes on if its reader has left."""
    try:
        click.echo(line)
        sys.stdout.flush()
    except OSError:
        drop_unwritten()


def drop_unwritten() -> None:
    """Drop what standard output does not take, which would fail again at the end of the program."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = _nothing(sys.stdout.fileno(), "w")


def _nothing(descriptor: int, mode: str) -> IO[str]:
    """Open /dev/null as `descriptor`, so that no other file gets its number."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    return open(descriptor, mode, encoding="utf-8", errors="replace", closefd=False)
