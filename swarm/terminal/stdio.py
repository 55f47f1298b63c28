"""Standard input and output as a program finds them: closed, of another encoding, or with nobody
who reads any more."""

import io
import os
import sys
from typing import IO

import click


def settle() -> None:
    """What is closed (``>&-``) is like /dev/null; a character that the encoding lacks becomes a
    question mark."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nothing(descriptor, "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """A line on standard output, of a program that goes on when nobody reads what it says."""
    try:
        click.echo(line)
        sys.stdout.flush()
    except OSError:
        drop_unwritten()


def drop_unwritten() -> None:
    """What standard output does not take is lost, instead of being an error once more at the end of
    the program."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = _nothing(sys.stdout.fileno(), "w")


def _nothing(descriptor: int, mode: str) -> IO[str]:
    """/dev/null as a stream, in the place of `descriptor` so that no other file gets its number."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    return open(descriptor, mode, encoding="utf-8", errors="replace", closefd=False)
