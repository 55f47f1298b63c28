"""A whole swarm on one machine: a bootstrap node and peers as real processes that find each other through the DHT."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

from swarm.config import Network
from swarm.errors import SwarmError

NETWORK = "swarm-demo"
START_TIMEOUT_S = 90.0  # importing torch in nine processes on a small machine
STOP_TIMEOUT_S = 8.0


class ProcessFailed(SwarmError):
    """A process of the local swarm ended by itself."""

    def __init__(self, command: Sequence[str], code: int | None, said: str) -> None:
        super().__init__(command, code, said)
        self.command, self.code, self.said = tuple(command), code, said

    def __str__(self) -> str:
        last = self.said.strip().splitlines()[-1:] or ["it said nothing"]
        return f"`swarm-peer {' '.join(self.command)}` ended with exit code {self.code}: {last[0]}"


class LocalSwarm:
    """Starts processes on entering and ends every one of them on leaving, however that comes about.

    Processes also end when ours does: they watch the pipe that is their standard input.

    Args:
        model: name or folder.
        spans: one peer for each, serving layers ``[a, b)``.
        link_ms: emulated one-way delay of every message that a peer sends.
    """

    def __init__(self, model: str, spans: Sequence[tuple[int, int]], link_ms: float = 0.0) -> None:
        self.model, self.spans, self.link_ms = model, tuple(spans), link_ms
        self.peers: list[asyncio.subprocess.Process] = []
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> "LocalSwarm":
        try:
            async with _deadline(START_TIMEOUT_S):
                await self._start()
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

    async def add_peer(self, first: int, last: int, *more: str) -> asyncio.subprocess.Process:
        """Start one more peer and wait until it serves."""
        command = ["join", self.model, "--layers", f"{first}:{last}", "--threads", "1", "--link-ms", f"{self.link_ms}"]
        process = await self._spawn([*command, "--bootstrap", self.bootstrap, *more])
        self.peers.append(process)
        return process

    async def _start(self) -> None:
        node = await self._spawn(["bootstrap", "--port", "0", "--json"])
        addresses = json.loads(await self._first_line(node, ["bootstrap"]))["addresses"]
        self.bootstrap: str = addresses[0]
        peers = [await self.add_peer(first, last) for first, last in self.spans]
        await asyncio.gather(*(self._first_line(peer, ["join", self.model]) for peer in peers))

    async def _spawn(self, command: list[str]) -> asyncio.subprocess.Process:
        common = ["--host", "127.0.0.1", "--network", NETWORK, "--ephemeral", "--until-eof"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "peers.cli",
            *command,
            *common,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for us alone: we end them in order
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # they share this machine's cores
        )
        self._processes.append(process)
        return process

    async def _first_line(self, process: asyncio.subprocess.Process, command: Sequence[str]) -> str:
        """What a process says when it is up. Raises `ProcessFailed` if it ends instead."""
        assert process.stdout is not None
        assert process.stderr is not None
        line = await process.stdout.readline()
        if not line:
            said = (await process.stderr.read()).decode(errors="replace")
            raise ProcessFailed(command, await process.wait(), said)
        return line.decode()

    async def _stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(_end(process) for process in self._processes))


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.communicate(), STOP_TIMEOUT_S)
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Cancel the body after ``seconds`` and raise TimeoutError (asyncio.timeout, which Python 3.10 lacks)."""
    task = asyncio.current_task()
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    handle = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        yield
    except asyncio.CancelledError:
        if expired:
            raise asyncio.TimeoutError from None
        raise
    finally:
        handle.cancel()


def even_spans(layers: int, peers: int) -> list[tuple[int, int]]:
    """``layers`` cut into ``peers`` contiguous spans whose lengths differ by one at most."""
    cuts = [layers * i // peers for i in range(peers + 1)]
    return list(pairwise(cuts))
