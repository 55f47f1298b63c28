"""A peer behind NAT in an emulated internet: it serves through a relay, then directly."""

import asyncio
import json
import sys
from typing import Any

import pytest

from helpers.local_swarm import replace_peer
from helpers.programs import output_of
from lab.internet import Internet
from lab.links import Link
from swarm.demo import TARGET
from swarm.demo.local import NETWORK, LocalSwarm
from swarm.demo.problems import problems

IMPOSSIBLE = Internet.possible()
pytestmark = [
    pytest.mark.skipif(bool(IMPOSSIBLE), reason=IMPOSSIBLE),
    pytest.mark.usefixtures("warmly"),
]

CLIENT, PEER = 0, 3  # hosts; 1 is the bootstrap node's, 2 the other peer's
SPANS = [(0, 4), (4, 8)]
PROMPT = next(problems(2026, held_out=True)).prompt
PATIENCE_S = 300.0


async def test_a_peer_behind_nat_serves_through_a_relay_and_directly_once_the_way_is_open() -> None:
    with Internet(4, Link(delay_ms=5)) as internet:
        internet.hide(PEER)
        async with LocalSwarm(TARGET, SPANS, hosts=internet) as swarm:
            relayed = await generate(internet, swarm)
            assert await paths(internet, swarm) == {0: "direct", 4: "relay"}
            internet.open(PEER)
            swarm.peers[1].terminate()
            await swarm.peers[1].wait()
            await replace_peer(swarm, 1)
            direct = await generate(internet, swarm)
            assert await paths(internet, swarm) == {0: "direct", 4: "direct"}
        assert relayed == direct
        assert len(direct) > 20


async def generate(internet: Internet, swarm: LocalSwarm) -> str:
    answer = await run(internet, swarm, "generate", TARGET, PROMPT, "--max-new-tokens", "24")
    text: str = answer["text"]
    return text


async def paths(internet: Internet, swarm: LocalSwarm) -> dict[int, str]:
    """Return how the peer of each first layer is reached."""
    (report,) = await run(internet, swarm, "status")
    return {peer["layers"][0]: peer["path"] for peer in report["peers"]}


async def run(internet: Internet, swarm: LocalSwarm, *command: str) -> Any:
    """Return what ``swarm`` prints in the client's host."""
    options = ["--bootstrap", swarm.bootstrap, "--network", NETWORK, "--json"]
    process = await asyncio.create_subprocess_exec(
        *internet.inside(CLIENT, [sys.executable, "-m", "swarm.cli", *command, *options]),
        stdout=asyncio.subprocess.PIPE,
    )
    return json.loads(await output_of(process, PATIENCE_S))
