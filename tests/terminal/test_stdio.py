"""Standard output that is closed, full, or has lost its reader."""

import subprocess
import sys

import pytest

from helpers.loopback import default_signals

HANG_S = 300.0
PROGRAM = """
import sys
from swarm.cli.main import guard
from swarm.terminal import stdio
def command(**_):
    {}
sys.exit(guard(command, "swarm"))
"""
PIECES = (
    "from types import SimpleNamespace; from swarm.terminal import console; "
    "console.show_piece(SimpleNamespace(text='text', origin='target'))"
)
SAY = 'for i in range(3): stdio.say(f"line {i}")'
READ = 'print("read", repr(sys.stdin.read()), file=sys.stderr)'


def ran(command: str, redirection: str) -> tuple[int, str]:
    """Return exit code and standard error of a program that a shell starts."""
    shell = f'"$0" -c "$1" {redirection}'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}", sys.executable, PROGRAM.format(command)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
        preexec_fn=default_signals,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", [PIECES, SAY, 'print("text")'])
def test_a_closed_output_is_like_none(command: str) -> None:
    assert ran(command, ">&-") == (0, "")


def test_what_a_program_opens_does_not_become_its_closed_output() -> None:
    opened = "import os; assert os.open(os.devnull, os.O_RDONLY) > 2"
    assert ran(opened, "<&- >&- 2>&-") == (0, "")


def test_a_closed_input_is_at_its_end() -> None:
    assert ran(READ, "<&-") == (0, "read ''\n")


def test_a_disk_that_is_full_is_one_sentence() -> None:
    code, said = ran('print("text")', ">/dev/full")
    assert (code, said) == (
        5,
        "error: No space left on device; see that it exists, is yours and has room\n",
    )


def test_a_reader_that_leaves_ends_a_text_without_a_word() -> None:
    text = 'for _ in range(1 << 14): print("text")'
    assert ran(text, "| true") == (1, "")


def test_a_program_that_lasts_goes_on_when_its_reader_leaves() -> None:
    lasting = (
        'import time; [stdio.say("text") for _ in range(1 << 14)]; print("done", file=sys.stderr)'
    )
    assert ran(lasting, "| true") == (0, "done\n")
