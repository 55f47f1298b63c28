"""Peers that nobody tells which layers to serve, as real processes: they cover the model, and close its gaps."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from architectures import Architecture

from swarm.config import Network
from swarm.identity import Identity
from swarm.network.directory import Directory
from swarm.status import ModelStatus, look

LAYERS, CAPACITY, PEERS, KILLED = 8, 2, 8, 3
PATIENCE_S = 240.0  # the machine may be busy; how long it takes is printed


async def test_peers_without_layers_cover_the_model_twice_and_again_after_three_are_killed(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    Architecture("llama", {"num_hidden_layers": LAYERS}).save(folder)
    async with await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True) as bootstrap:
        network = Network("test", (bootstrap.addresses[0],))
        async with peers(folder, network) as processes:
            started = time.monotonic()
            await until(lambda status: min(coverage(status)) >= 2, folder, network)
            print(f"double coverage {time.monotonic() - started:.1f} s after {PEERS} processes were started")

            for process in processes[:KILLED]:
                process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            await until(lambda status: min(coverage(status)) >= 1, folder, network)
            print(f"whole again {time.monotonic() - killed:.1f} s after {KILLED} were killed")


def coverage(status: ModelStatus) -> list[int]:
    """How many peers serve each layer, of those that are online and answer."""
    spans = [peer.layers for peer in status.peers if peer.state == "online" and peer.rtt_ms is not None]
    return [sum(first <= layer < last for first, last in spans) for layer in range(LAYERS)]


async def until(condition: Callable[[ModelStatus], bool], folder: Path, network: Network) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (status,) = await look(network, str(folder))
        if condition(status):
            return
        assert time.monotonic() < deadline, f"it did not come to this: {status}"
        await asyncio.sleep(0.5)


@asynccontextmanager
async def peers(folder: Path, network: Network) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    arguments = (str(folder), "--max-layers", str(CAPACITY), "--threads", "1", "--host", "127.0.0.1", "--ephemeral")
    where = ("--bootstrap", network.bootstrap[0], "--network", network.name, "--until-eof")
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "peers.cli", "join", *arguments, *where),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(PEERS)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))
