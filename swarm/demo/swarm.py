"""The demonstration's swarm, of processes on this machine, and a client of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

import torch

from swarm.client.client import SwarmClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm, even_spans
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.model.drafts.dtype import check_compute


@asynccontextmanager
async def demo_swarm(
    peers: int, link_ms: float, compute: ComputeOptions = AUTOMATIC
) -> AsyncIterator[tuple[LocalSwarm, SwarmClient]]:
    """Start ``peers`` peers that share the demo target, and open a client that drafts for it.

    Args:
        link_ms: emulated delay of every link, one way.
        compute: where the client computes.

    Raises:
        ProcessFailed, NotStarted: if the swarm does not come up.
        NoSuchDevice, ConfigError: if this computer cannot compute as it is asked to.
    """
    check_compute(compute)  # before any process is started
    torch.set_num_threads(1)  # the peers need the other cores
    spans = even_spans(Checkpoint.open(locate(TARGET)).num_layers, peers)
    async with LocalSwarm(TARGET, spans, link_ms) as swarm:
        client = SwarmClient(
            locate(TARGET),
            draft=locate(DRAFT),
            network=swarm.network,
            link_ms=link_ms,
            audit_rate=0.0,
            **asdict(compute),
        )
        async with client:
            yield swarm, client
