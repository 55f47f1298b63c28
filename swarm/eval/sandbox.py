"""Running code that a model wrote.

In a process of its own, in an empty folder, without our environment, with limits on time, memory,
files and processes. That keeps accidents small. It is no prison: such code can still read what this
user may read and use the network. Whoever does not trust the model runs the evaluation in a
container.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MAX_SAID_BYTES = 2_000

# The limits are set by the process itself, before it reads the code. That the code ran to its end
# is told by a secret that it has not seen, so that leaving early does not count as passing.
_BOOTSTRAP = """
import resource, sys
cpu, memory, file, processes = map(int, sys.argv[1:5])
secret = sys.stdin.readline().strip()
for what, most in (
    (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, file),
    (resource.RLIMIT_NPROC, processes), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(what, (most, most))
with open(sys.argv[5], encoding="utf-8") as code:
    source = code.read()
exec(compile(source, "solution.py", "exec"), {"__name__": "__main__"})
sys.__stdout__.write("\\n" + secret + "\\n")
sys.__stdout__.flush()
"""


@dataclass(frozen=True)
class Limits:
    """What a run may use."""

    seconds: int = 10  # of processor time, and of waiting
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20
    processes: int = 0  # besides those that the user has; root is not bound by it


@dataclass(frozen=True)
class Outcome:
    """Whether the code ran to its end, and if not the last line that it said, or why it was
    stopped."""

    passed: bool
    said: str


def run_python(source: str, limits: Limits | None = None) -> Outcome:
    """Run a program to its end, or to its limits. Blocks."""
    limits = limits or Limits()
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="swarm-eval-") as folder:
        code, out, err = (Path(folder, name) for name in ("solution.py", "out", "err"))
        code.write_text(source, encoding="utf-8", errors="replace")
        bounds = [
            str(each)
            for each in (limits.seconds, limits.memory_bytes, limits.file_bytes, limits.processes)
        ]
        # Its output goes to files, whose size is limited too, so that a flood fills nothing.
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOTSTRAP, *bounds, code.name],
                cwd=folder,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            stopped = _wait(process, secret, limits.seconds)
        passed = process.returncode == 0 and secret in _end_of(out)
        said = (
            ""
            if passed
            else stopped or next(iter(reversed(_end_of(err).strip().splitlines())), "it left early")
        )
        return Outcome(passed, said)


def _wait(process: "subprocess.Popen[bytes]", secret: str, seconds: float) -> str:
    """Let it run; returns why it was stopped, if it was. Its children end with it."""
    try:
        process.communicate(f"{secret}\n".encode(), timeout=seconds + 1)
        return "the time was up" if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL) else ""
    except subprocess.TimeoutExpired:
        return "the time was up"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_of(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - MAX_SAID_BYTES))
        return opened.read().decode(errors="replace")
