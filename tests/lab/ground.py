"""The ground of laboratory runs: a swarm and a client as processes in an emulated internet.

Where no emulated internet is possible (no root), the members delay their own messages instead. That
has a delay, but no jitter, loss or bandwidth, and none of the kernel's TCP.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from lab.internet import Internet
from lab.links import Link
from swarm.demo import TARGET
from swarm.demo.local import LocalSwarm, ThisMachine, even_spans

LAYERS = 8  # of the demo target
CLIENT = Path(__file__).with_name("client.py")
ANSWER_TIMEOUT_S = 600.0
MAX_ANSWER_BYTES = 1 << 24


class Ground:
    """A swarm with one client, whose links can be changed between requests."""

    def __init__(
        self, swarm: LocalSwarm, client: asyncio.subprocess.Process, internet: Internet | None
    ) -> None:
        self.swarm = swarm
        self.internet = internet
        self._client = client

    def set_links(self, link: Link) -> None:
        """Set the links of client and peers, and among peers; the bootstrap node stays near."""
        assert self.internet is not None
        hosts = [0, *range(2, 2 + len(self.swarm.spans))]
        for i, a in enumerate(hosts):
            for b in hosts[i + 1 :]:
                self.internet.set_link(a, b, link)

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send the client a request (`lab.client`)."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        self._client.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        await self._client.stdin.drain()
        line = await asyncio.wait_for(self._client.stdout.readline(), ANSWER_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def lateness_ms(self) -> float:
        """The most that the carrier delivered a packet late; 0 without a carrier."""
        if self.internet is None:
            return 0.0
        return max(each.worst_late_ms for each in self.internet.statistics().values())


@asynccontextmanager
async def ground(
    peers: int, link_ms: float | None = None, coverage: int = 1
) -> AsyncIterator[Ground]:
    """Start a swarm over the demo target.

    Args:
        coverage: peers that serve each layer.
        link_ms: None for an emulated internet, whose links take no time until `Ground.set_links`;
            else the one-way delay of messages, which every member emulates itself.
    """
    with Internet(2 + peers) if link_ms is None else nullcontext() as internet:
        hosts = internet or ThisMachine()
        spans = even_spans(LAYERS, peers // coverage) * coverage
        async with LocalSwarm(TARGET, spans, link_ms or 0.0, hosts) as swarm:
            command = [sys.executable, str(CLIENT), swarm.bootstrap, str(link_ms or 0.0)]
            async with _process(hosts.inside(0, command)) as client:
                yield Ground(swarm, client, internet)


@asynccontextmanager
async def _process(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_ANSWER_BYTES,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), ANSWER_TIMEOUT_S)  # it is up
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 15.0)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
