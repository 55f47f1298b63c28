"""What happens to a swarm of processes while a test runs: peers join and are replaced."""

import asyncio
import contextlib

from swarm.demo.local import LocalSwarm, _last_word


async def add_peer(
    swarm: LocalSwarm, first: int, last: int, *more: str
) -> asyncio.subprocess.Process:
    """Start one more peer for layers ``[first, last)`` and wait until it serves."""
    peer = await swarm._launch(2 + len(swarm.peers), first, last, *more)
    swarm.peers.append(peer.process)
    swarm.peer_ids.append(_last_word(await peer.up()))
    return peer.process


async def replace_peer(swarm: LocalSwarm, number: int) -> None:
    """Kill one of the first peers, start another one in its place and wait until it serves."""
    with contextlib.suppress(ProcessLookupError):
        swarm.peers[number].kill()
    peer = await swarm._launch(2 + number, *swarm.spans[number])
    swarm.peers[number] = peer.process
    swarm.peer_ids[number] = _last_word(await peer.up())
