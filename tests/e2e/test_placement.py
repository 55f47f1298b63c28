"""Peers without assigned layers, as real processes: they cover the model, and close its gaps."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from helpers.models import Architecture
from swarm.config import Network
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.network.dht.directory import Directory
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections
from swarm.wire.handshake import LocalMember

LAYERS, CAPACITY, PEERS, KILLED = 4, 2, 4, 2
PATIENCE_S = 240.0  # the machine may be busy; how long it takes is printed

pytestmark = pytest.mark.usefixtures("warmly")


async def test_peers_without_layers_cover_the_model_twice_and_close_a_gap(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    Architecture("llama", {"num_hidden_layers": LAYERS}).save(folder)
    fingerprint = Checkpoint.open(str(folder)).fingerprint
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as bootstrap:
        view = View(bootstrap, fingerprint)
        async with peers(folder, bootstrap) as swarm:
            started = time.monotonic()
            await view.until(lambda counts: min(counts) >= 2)
            done, up = time.monotonic(), min(peer.said[0][0] for peer in swarm)
            print(
                f"double coverage {done - started:.1f} s after {PEERS} processes were started",
                end=", ",
            )
            print(f"{done - up:.1f} s after the first of them had found its layers")

            gone = swarm[0].layers
            doomed = sorted(swarm, key=lambda peer: peer.layers != gone)[:KILLED]
            assert [peer.layers for peer in doomed] == [gone] * KILLED
            for peer in doomed:
                peer.process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            await view.until(lambda counts: min(counts) == 0)
            await view.until(lambda counts: min(counts) >= 1)
            print(f"whole again {time.monotonic() - killed:.1f} s after {KILLED} were killed")


class View:
    """The peers that a client could use: online and answering."""

    def __init__(self, directory: Directory, fingerprint: str) -> None:
        self._directory = directory
        self._fingerprint = fingerprint

    async def until(self, condition: Callable[[list[int]], bool]) -> None:
        """Wait until the right number of peers serves each layer."""
        deadline = time.monotonic() + PATIENCE_S
        dialer = Dialer(LocalMember(Identity.generate(), Network("test")))
        connections = Connections(dialer)
        try:
            while not condition(counts := await self._counts(connections)):
                assert time.monotonic() < deadline, f"it did not come to this: {counts}"
                await asyncio.sleep(0.2)
        finally:
            await connections.close()
            await dialer.close()

    async def _counts(self, connections: Connections) -> list[int]:
        records = await self._directory.peers(self._fingerprint, LAYERS)
        reached = await connections.reach(
            [record for record in records if record.state == "online"]
        )
        spans = [(r.first_layer, r.last_layer) for r in records if r.peer_id in reached]
        return [sum(first <= layer < last for first, last in spans) for layer in range(LAYERS)]


class Peer:
    """A process, and its events with their times."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[tuple[float, str]] = []
        self.listening = asyncio.create_task(self._listen())

    @property
    def layers(self) -> str:
        """The layers of its last event that names any."""
        return re.findall(r"serving layers (\d+:\d+)", " ".join(line for _, line in self.said))[-1]

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append((time.monotonic(), line.decode().strip()))


@asynccontextmanager
async def peers(folder: Path, bootstrap: Directory) -> AsyncIterator[list[Peer]]:
    arguments = (
        str(folder),
        "--max-layers",
        str(CAPACITY),
        "--threads",
        "1",
        "--host",
        "127.0.0.1",
        "--ephemeral",
    )
    where = ("--bootstrap", bootstrap.addresses[0], "--network", "test", "--until-eof")
    started = []
    try:
        for _ in range(PEERS):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "peers.cli", "join", *arguments, *where),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            started.append(Peer(process))
        yield started
    finally:
        for peer in started:
            with contextlib.suppress(ProcessLookupError):
                peer.process.terminate()
        await asyncio.gather(
            *(peer.process.wait() for peer in started), *(peer.listening for peer in started)
        )
