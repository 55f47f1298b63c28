"""A whole swarm on one machine: a bootstrap node and peers, as processes that meet in the DHT."""

import asyncio
import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from swarm.config import Network
from swarm.errors import LocalError
from swarm.util.tasks import end, within

NETWORK = "swarm-demo"
START_TIMEOUT_S = 180.0  # nine processes import torch on a small machine that is busy
STOP_TIMEOUT_S = 12.0  # a peer itself takes at most ten
MAX_OUTPUT_LINES = 100  # of a process's standard output, the last ones
MAX_ERROR_LINES = 50  # of a process's standard error, the last ones, for the message of a failure


@dataclass(eq=False)
class ProcessFailed(LocalError):
    """A process of the local swarm ended by itself."""

    command: tuple[str, ...]
    code: int | None
    said: str

    def __str__(self) -> str:
        last = self.said.strip().splitlines()[-1:] or ["it said nothing"]
        return f"`swarm-peer {' '.join(self.command)}` ended with exit code {self.code}: {last[0]}"


class NotStarted(LocalError):
    """The local swarm was not up in time."""

    def __str__(self) -> str:
        late = f"the swarm was not up within {START_TIMEOUT_S:g} s"
        return f"{late}: this machine may be too busy; try fewer --peers"


class Hosts(Protocol):
    """The hosts that processes run on.

    Host 0 is the client's, host 1 the bootstrap node's, and every peer has its own.
    """

    def address(self, host: int) -> str:
        """Return the IPv4 address by which other hosts reach it."""
        ...

    def inside(self, host: int, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` there."""
        ...


class ThisMachine:
    """One host for all processes, over loopback."""

    def address(self, host: int) -> str:
        return "127.0.0.1"

    def inside(self, host: int, command: Sequence[str]) -> list[str]:
        return list(command)


class LocalSwarm:
    """A context manager that starts processes on entering and ends all of them on leaving.

    They also end when our process does: they watch the pipe of their standard input.

    Args:
        model: name or folder.
        spans: layers ``[a, b)``; one peer serves each span.
        link_ms: emulated one-way delay of every message that a peer sends.
        hosts: what they run on; by default this machine.
        more: further options of ``swarm-peer join``.
    """

    def __init__(
        self,
        model: str,
        spans: Sequence[tuple[int, int]],
        link_ms: float = 0.0,
        hosts: Hosts | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.spans = tuple(spans)
        self.link_ms = link_ms
        self._hosts = hosts or ThisMachine()
        self._more = tuple(more)
        self.peers: list[asyncio.subprocess.Process] = []
        self.peer_ids: list[str] = []  # of `peers`, in order
        self._processes: list[_Process] = []

    @property
    def output(self) -> list[str]:
        """The last lines that the processes have printed, one process after the other."""
        return [line for process in self._processes for line in process.output]

    async def __aenter__(self) -> "LocalSwarm":
        """Start all processes.

        Raises:
            ProcessFailed, NotStarted: after ending those that were started.
        """
        try:
            await within(START_TIMEOUT_S, self._start())
        except asyncio.TimeoutError:
            await self._stop()
            raise NotStarted from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @property
    def network(self) -> Network:
        """The network by which a client enters this swarm."""
        return Network(NETWORK, (self.bootstrap,))

    async def _start(self) -> None:
        node = await self._spawn(1, ["bootstrap", "--port", "0", "--json"])
        self.bootstrap: str = json.loads(await node.up())["addresses"][0]
        peers = [await self._launch(host, *span) for host, span in enumerate(self.spans, 2)]
        self.peers = [peer.process for peer in peers]
        lines = await asyncio.gather(*(peer.up() for peer in peers))
        self.peer_ids = [_last_word(line) for line in lines]

    async def _launch(self, host: int, first: int, last: int, *more: str) -> "_Process":
        command = ["join", self.model, "--layers", f"{first}:{last}", "--threads", "1"]
        command += ["--link-ms", f"{self.link_ms}", "--bootstrap", self.bootstrap, *self._more]
        return await self._spawn(host, [*command, *more])

    async def _spawn(self, host: int, command: list[str]) -> "_Process":
        common = ["--host", self._hosts.address(host), "--network", NETWORK, "--until-eof"]
        if "--key" not in command:
            common.append("--ephemeral")
        process = await asyncio.create_subprocess_exec(
            *self._hosts.inside(host, [sys.executable, "-m", "peers.cli", *command, *common]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to our process alone, which ends them in order
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # they share this machine's cores
        )
        self._processes.append(_Process(process, command))
        return self._processes[-1]

    async def _stop(self) -> None:
        for each in self._processes:
            with contextlib.suppress(ProcessLookupError):
                each.process.terminate()
        await asyncio.gather(*(each.end() for each in self._processes))


class _Process:
    """One process and its output, which is read all the time: a full pipe would block it."""

    def __init__(self, process: asyncio.subprocess.Process, command: Sequence[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self._command = command
        self._first_line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._errors: deque[str] = deque(maxlen=MAX_ERROR_LINES)
        self.output: deque[str] = deque(maxlen=MAX_OUTPUT_LINES)
        self._listening = [
            asyncio.create_task(_each_line(process.stdout, self._take)),
            asyncio.create_task(_each_line(process.stderr, self._errors.append)),
        ]

    async def up(self) -> str:
        """Wait for the line that the process prints when it is up, and return it.

        Raises:
            ProcessFailed: if it ends instead.
        """
        out, err = self._listening
        either: set[asyncio.Future[Any]] = {out, self._first_line}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._first_line.done():
            return self._first_line.result()
        await asyncio.wait({err})
        code = await self.process.wait()
        raise ProcessFailed(tuple(self._command), code, "".join(self._errors))

    async def end(self) -> None:
        """Wait until the process, which was told to end, has ended; kill it if it does not."""
        try:
            await within(STOP_TIMEOUT_S, self.process.wait())
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        finally:
            await end(*self._listening)

    def _take(self, line: str) -> None:
        self.output.append(line)
        # A peer that joins prints other lines before the one that says that it serves.
        is_starting = self._command[0] == "join" and not line.startswith("serving ")
        if not self._first_line.done() and not is_starting:
            self._first_line.set_result(line)


async def _each_line(stream: asyncio.StreamReader, take: Callable[[str], object]) -> None:
    while line := await stream.readline():
        take(line.decode(errors="replace"))


def _last_word(line: str) -> str:
    """Return the peer's id: the line that it prints when it is up ends with it."""
    return line.split()[-1]


def even_spans(layers: int, peers: int) -> list[tuple[int, int]]:
    """Cut ``layers`` into ``peers`` contiguous spans, whose lengths differ by one at most."""
    cuts = [layers * i // peers for i in range(peers + 1)]
    return list(pairwise(cuts))
