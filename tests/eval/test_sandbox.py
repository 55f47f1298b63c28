"""Code that a model wrote ends, whatever it does, and passes only if it ran to its end."""

import time

import pytest

from helpers.loopback import PATIENCE_S
from swarm.eval.sandbox import SandboxLimits, run_python

QUICK = SandboxLimits(seconds=2, memory_bytes=256 << 20, file_bytes=100_000)


def test_right_code_passes():
    outcome = run_python("print('hello')\nassert 1 + 1 == 2\n", QUICK)
    assert (outcome.passed, outcome.problem) == (True, "")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("assert 1 + 1 == 3, 'wrong'", "AssertionError: wrong"),
        ("def f(:", "SyntaxError"),
        ("x = 'a' * (1 << 30)", "MemoryError"),
        ("open('big', 'wb').write(b'x' * 1_000_000)", "File too large"),
        ("import sys; sys.exit(0)", "it left early"),
        ("import os; os._exit(0)", "it left early"),
        ("input()", "EOFError"),
        ("import os; assert 'HOME' not in os.environ; assert os.listdir() == []", "AssertionError"),
    ],
)
def test_everything_else_fails_and_says_why(source, said):
    outcome = run_python(source, QUICK)
    assert not outcome.passed
    assert said in outcome.problem


@pytest.mark.parametrize(
    "source",
    ["while True: pass", "import time; time.sleep(600)", "while True: print('x' * 10_000)"],
)
def test_what_does_not_end_is_ended(source):
    started = time.monotonic()
    assert not run_python(source, QUICK).passed
    assert time.monotonic() - started < PATIENCE_S


def test_what_it_leaves_running_is_ended_too(tmp_path):
    mark = tmp_path / "alive"
    source = f"""
import os, time
if os.fork() == 0:
    time.sleep(4)
    open({str(mark)!r}, "w").close()
    os._exit(0)
"""
    run_python(source, SandboxLimits(seconds=2, processes=10_000))
    time.sleep(4.5)
    assert not mark.exists()
