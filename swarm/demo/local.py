"""A whole swarm on one machine: a bootstrap node and peers as real processes that find each other
through the DHT."""

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
START_TIMEOUT_S = 180.0  # importing torch in nine processes on a small machine that is busy
STOP_TIMEOUT_S = 12.0  # a peer gives itself ten
MAX_SAID = 100  # last lines of a process's standard output
MAX_COMPLAINTS = 50  # last lines of a process's standard error, for the message when it fails


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
        return (
            f"the swarm was not up within {START_TIMEOUT_S:g} s: this machine may be too busy; try"
            " fewer --peers"
        )


class Hosts(Protocol):
    """Where processes run.

    Host 0 is the client's, host 1 the bootstrap node's, and every peer has one of its own.
    """

    def address(self, host: int) -> str:
        """The IPv4 address by which the others reach it."""
        ...

    def inside(self, host: int, command: Sequence[str]) -> list[str]:
        """The command that runs ``command`` there."""
        ...


class ThisMachine:
    """All on one host, over loopback."""

    def address(self, host: int) -> str:
        return "127.0.0.1"

    def inside(self, host: int, command: Sequence[str]) -> list[str]:
        return list(command)


class LocalSwarm:
    """Starts processes on entering and ends every one of them on leaving, however that comes about.

    Processes also end when ours does: they watch the pipe that is their standard input.

    Args:
        model: name or folder.
        spans: one peer for each, serving layers ``[a, b)``.
        link_ms: emulated one-way delay of every message that a peer sends.
        hosts: where they run.
    """

    def __init__(
        self,
        model: str,
        spans: Sequence[tuple[int, int]],
        link_ms: float = 0.0,
        hosts: Hosts | None = None,
    ) -> None:
        self.model, self.spans, self.link_ms = model, tuple(spans), link_ms
        self._hosts = hosts or ThisMachine()
        self.peers: list[asyncio.subprocess.Process] = []
        self.peer_ids: list[str] = []  # theirs
        self._processes: list[_Process] = []

    @property
    def said(self) -> list[str]:
        """What all processes have lately printed, line by line."""
        return [line for process in self._processes for line in process.said]

    async def __aenter__(self) -> "LocalSwarm":
        """Raises `ProcessFailed` or `NotStarted`, after ending what was started."""
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
        """How a client enters this swarm."""
        return Network(NETWORK, (self.bootstrap,))

    async def _start(self) -> None:
        node = await self._spawn(1, ["bootstrap", "--port", "0", "--json"])
        self.bootstrap: str = json.loads(await node.up())["addresses"][0]
        peers = [await self._launch(host, *span) for host, span in enumerate(self.spans, 2)]
        self.peers = [peer.process for peer in peers]
        self.peer_ids = [
            _last_word(said) for said in await asyncio.gather(*(peer.up() for peer in peers))
        ]

    async def _launch(self, host: int, first: int, last: int, *more: str) -> "_Process":
        command = [
            "join",
            self.model,
            "--layers",
            f"{first}:{last}",
            "--threads",
            "1",
            "--link-ms",
            f"{self.link_ms}",
        ]
        return await self._spawn(host, [*command, "--bootstrap", self.bootstrap, *more])

    async def _spawn(self, host: int, command: list[str]) -> "_Process":
        common = ["--host", self._hosts.address(host), "--network", NETWORK, "--until-eof"]
        if "--key" not in command:
            common.append("--ephemeral")
        process = await asyncio.create_subprocess_exec(
            *self._hosts.inside(host, [sys.executable, "-m", "peers.cli", *command, *common]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for us alone: we end them in order
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
    """One process and what it says: read all the time, since a full pipe would stop it in its
    tracks."""

    def __init__(self, process: asyncio.subprocess.Process, command: Sequence[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self._command = process, command
        self._first_line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._complaints: deque[str] = deque(maxlen=MAX_COMPLAINTS)
        self.said: deque[str] = deque(maxlen=MAX_SAID)
        self._listening = [
            asyncio.create_task(_each_line(process.stdout, self._hear)),
            asyncio.create_task(_each_line(process.stderr, self._complaints.append)),
        ]

    async def up(self) -> str:
        """What the process says when it is up. Raises `ProcessFailed` if it ends instead."""
        out, err = self._listening
        either: set[asyncio.Future[Any]] = {out, self._first_line}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._first_line.done():
            return self._first_line.result()
        await asyncio.wait({err})
        code = await self.process.wait()
        raise ProcessFailed(tuple(self._command), code, "".join(self._complaints))

    async def end(self) -> None:
        """Wait until the process, which was asked to, has left; kill it if it does not."""
        try:
            await within(STOP_TIMEOUT_S, self.process.wait())
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        finally:
            await end(*self._listening)

    def _hear(self, line: str) -> None:
        self.said.append(line)
        # on its way to be up
        says_more = self._command[0] == "join" and not line.startswith("serving ")
        if not self._first_line.done() and not says_more:
            self._first_line.set_result(line)


async def _each_line(stream: asyncio.StreamReader, tell: Callable[[str], object]) -> None:
    while line := await stream.readline():
        tell(line.decode(errors="replace"))


def _last_word(said: str) -> str:
    """A peer's first sentence ends with its id."""
    return said.split()[-1]


def even_spans(layers: int, peers: int) -> list[tuple[int, int]]:
    """``layers`` cut into ``peers`` contiguous spans whose lengths differ by one at most."""
    cuts = [layers * i // peers for i in range(peers + 1)]
    return list(pairwise(cuts))
