"""Running code that a model wrote.

The code runs in its own process, in an empty folder, without our environment, with limits on time,
memory, files and processes. That keeps accidents small. It is no real isolation: the code can still
read this user's files and use the network. Evaluate a model that you do not trust in a container.
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

MAX_OUTPUT_BYTES = 2_000  # of each output, from its end

# The process sets its own limits before it reads the code. It prints a secret when the code has run
# to its end; the code does not know the secret, so that leaving early does not count as passing.
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
class SandboxLimits:
    """The resources that a run may use."""

    seconds: int = 10  # of processor time, and of waiting
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20
    processes: int = 0  # besides those that the user has; it does not bind root


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        passed: the code ran to its end.
        problem: if not, the last line of its errors, or why it was stopped.
    """

    passed: bool
    problem: str


def run_python(source: str, limits: SandboxLimits | None = None) -> RunResult:
    """Run a program to its end, or to its limits. Blocks meanwhile."""
    limits = limits or SandboxLimits()
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="swarm-eval-") as folder:
        code, out, err = (Path(folder, name) for name in ("solution.py", "out", "err"))
        code.write_text(source, encoding="utf-8", errors="replace")
        allowed = (limits.seconds, limits.memory_bytes, limits.file_bytes, limits.processes)
        bounds = map(str, allowed)
        # Its output goes to files, whose size is limited too.
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
        if process.returncode == 0 and secret in _end_of(out):
            return RunResult(True, "")
        complaints = _end_of(err).strip().splitlines()
        return RunResult(False, stopped or (complaints[-1] if complaints else "it left early"))


def _wait(process: "subprocess.Popen[bytes]", secret: str, seconds: float) -> str:
    """Let it run, and return why it was stopped, if it was. Its children end with it."""
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
        opened.seek(max(0, file.stat().st_size - MAX_OUTPUT_BYTES))
        return opened.read().decode(errors="replace")
