"""The warm process: it holds all libraries, but no module of ours and no thread.

It ends when its standard input, a socket of the tests', is closed.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = str(Path(__file__).parents[1])
OURS = ("peers", "swarm")
# modules of ours that import all libraries, and modules that libraries import when they are used
MODULES = (
    *("peers.cli", "peers.server", "peers.ops.metrics", "peers.ops.health_server"),
    *("swarm.network.nat.relay_node", "swarm.cli.main", "swarm.client.client"),
    *("swarm.gateway.server", "peers.ops.progress"),
    *("transformers.models.auto.tokenization_auto", "transformers.models.llama.modeling_llama"),
)
COMMANDS = {"peers.cli": "peers.cli", "swarm.cli": "swarm.cli.main"}  # by what `python -m` is given
STARTS_OTHERS = ("swarm.cli", "demo")
MAX_REQUEST_BYTES = 1 << 18
PYTHONS_OWN = {signal.SIGPIPE: signal.SIG_IGN, signal.SIGINT: signal.default_int_handler}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[0] = TESTS
    import_libraries()
    requests = socket.socket(fileno=os.dup(0))
    requests.send(b"warm")
    program = next_program(requests)
    if tuple(program["program"][:2]) == STARTS_OTHERS:
        program = beside_a_warm_process(program)
    become(program)


def import_libraries() -> None:
    gc.disable()  # a sixth of the time, and nothing would be found
    for name in MODULES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # children share these pages as long as no collector writes to them
    gc.enable()


def next_program(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request, and return the request in the child. Exit when no more can come."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 3)
        if not message:
            os._exit(0)
        answer, said = os.pipe()
        if (between := os.fork()) == 0:
            if (child := os.fork()) == 0:
                requests.close()
                for number, file in enumerate(files):
                    os.dup2(file, number)
                os.closerange(3, max(answer, said, *files) + 1)
                request: dict[str, Any] = json.loads(message)
                return request
            os.write(said, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)  # only then the child is the tests' own
        requests.send(os.read(answer, 64))
        for file in (answer, said, *files):
            os.close(file)


def beside_a_warm_process(request: dict[str, Any]) -> dict[str, Any]:
    """Make a copy of this process that forks what the program starts. It ends with the program.

    Returns the program here, and in each child of the copy the program that it is.
    """
    # Not above: what `multiprocessing` spawns runs this file again, without the tests' modules.
    from warm import OVEN, WarmPopen

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        OVEN.use(ours)
        subprocess.Popen = WarmPopen  # type: ignore[misc]
        return request
    ours.close()
    os.setpgrp()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # the program's: who reads its output waits until all have closed it
        os.dup2(nothing, standard)
    return next_program(theirs)


def become(request: dict[str, Any]) -> None:
    """Do what the interpreter does before the first line of a module, and then run the module."""
    if request["group"] is None:
        os.setsid()
    else:
        os.setpgid(0, request["group"])
    if request["host"] is not None:
        enter(request["host"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, handler in PYTHONS_OWN.items():
        signal.signal(number, handler)
    a_line_at_a_time = bool(os.environ.get("PYTHONUNBUFFERED")) or os.isatty(1)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(
        1, "w", 1 if a_line_at_a_time else -1, errors=sys.stdout.errors, closefd=False
    )
    sys.stderr = os.fdopen(2, "w", 1, errors=sys.stderr.errors, closefd=False)
    sys.path[:1] = [
        request["folder"],
        *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
    ]
    sys.argv = list(request["program"])
    importlib.import_module(COMMANDS[sys.argv[0]]).main()


def enter(host: str) -> None:
    """Enter a network namespace, as `ip netns exec` does."""
    with Path("/run/netns", host).open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), "cannot enter the namespace", host)


if __name__ == "__main__":
    main()
