"""Start programs of ours in processes that have imported the libraries already.

A process that imports torch, transformers and hivemind computes for seven seconds before its first
own line. Tests that need processes, and are not about how these start, fork them from one that has
imported all of this once (`warm.process`). Such a program runs our code from its first line, and is
a child of the tests like any other; only its command line in the table of processes is the warm
process'. `swarm demo` forks its own processes in the same way, from a copy of the warm process that
is its child.
"""

import contextlib
import ctypes
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

PROGRAMS = ("peers.cli", "swarm.cli")
IN_HOST = ["ip", "netns", "exec"]  # how `lab.internet` begins commands
PROCESS = Path(__file__).parent / "process.py"
WARM = b"warm"  # the first message of the process
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")  # of `subprocess`
# prefixes of variables that libraries read while they are imported
READ_EARLY = ("HF_", "LANG", "LC_", "LD_", "OMP_", "PYTHON", "TORCH", "TRANSFORMERS_")
SEARCH = "PYTHONPATH"  # which `warm.process` applies later
MAX_ANSWER_BYTES = 64
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


@contextlib.contextmanager
def warm() -> Iterator[None]:
    """Let ``python -m swarm.cli`` and ``python -m peers.cli`` start warm, if nothing differs.

    This holds for processes that `subprocess` or asyncio start. The first entry takes a while.
    """
    if sys.platform != "linux":
        yield
        return
    OVEN.heat()
    with mock.patch.object(subprocess, "Popen", WarmPopen):
        yield


class WarmPopen(subprocess.Popen):  # type: ignore[type-arg]
    """Forks a program from the warm process instead of executing it."""

    is_warm = False
    _signature = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]

    def _execute_child(self, *arguments: Any) -> None:
        given = self._signature.bind(self, *arguments).arguments
        env = dict(os.environ if given["env"] is None else given["env"])
        host, program = _host_and_program(given["args"])
        special = given["preexec_fn"] or given["pass_fds"] or given["shell"]
        if special or program is None or not _imported_alike(env):
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        request = {
            "program": program,
            "host": host,
            "env": env,
            "folder": os.path.abspath(given["cwd"] or "."),
            "group": None if given["start_new_session"] else os.getpgrp(),
        }
        ends = (given["p2cread"], given["c2pwrite"], given["errwrite"])
        self.pid = OVEN.fork(
            request, [standard if end == -1 else end for standard, end in enumerate(ends)]
        )
        self._child_created = self.is_warm = True
        self._close_pipe_fds(*(given[pipe] for pipe in PIPES))  # type: ignore[attr-defined]


def _host_and_program(command: Any) -> tuple[str | None, list[str] | None]:
    """Return a command's network namespace (None: ours), and our program's words, if it is one."""
    words = list(command) if isinstance(command, list | tuple) else []
    host = words[3] if words[:3] == IN_HOST else None
    if host is not None:
        words = words[4:]
    ours = words[:2] == [sys.executable, "-m"] and words[2] in PROGRAMS
    return host, words[2:] if ours else None


def _imported_alike(env: Mapping[str, str]) -> bool:
    """Tell whether all variables that libraries read at import are the same."""
    names = {name for name in (*env, *os.environ) if name.startswith(READ_EARLY)} - {SEARCH}
    return all(env.get(name) == os.environ.get(name) for name in names)


class Oven:
    """The warm process. It starts when it is first needed, and lives until the tests end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def heat(self) -> None:
        with self._lock:
            if self._process is None:
                self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    command = [sys.executable, str(PROCESS)]
                    self._process = subprocess.Popen(command, stdin=theirs, preexec_fn=os.setpgrp)
                assert self._socket.recv(MAX_ANSWER_BYTES) == WARM

    def use(self, requests: socket.socket) -> None:
        """Ask an existing warm process, by its socket."""
        self._socket = requests

    def fork(self, request: Mapping[str, Any], files: Sequence[int]) -> int:
        """Return the id of a new child, with these files as standard input, output and error."""
        with self._lock, orphans_become_our_children():
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            return int(self._socket.recv(MAX_ANSWER_BYTES))

    def close(self) -> None:
        with self._lock:
            if self._process is not None:
                self._socket.close()
                self._process.wait()
                self._process = None


OVEN = Oven()


@contextlib.contextmanager
def orphans_become_our_children() -> Iterator[None]:
    """Let the kernel give us our children's children when their parents end."""
    prctl = ctypes.CDLL(None).prctl
    before = ctypes.c_int()
    assert prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0) == 0
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)
