"""An upgrade is a restart: the peer leaves in order, returns under its key, and texts go on."""

import asyncio
from pathlib import Path

import pytest

from helpers.local_swarm import add_peer
from helpers.loopback import soon
from swarm.client.client import SwarmClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm
from swarm.demo.problems import problems

LINK_MS = 10.0
NEW = 60
PROMPT = next(iter(problems(seed=44, held_out=True))).prompt

pytestmark = pytest.mark.usefixtures("warmly")


async def test_a_text_waits_for_its_only_peer_to_be_restarted(tmp_path: Path) -> None:
    itself = ("--key", str(tmp_path / "peer.key"), "--grace", "0")
    async with LocalSwarm(TARGET, [], LINK_MS) as swarm:
        old = await add_peer(swarm, 0, 8, *itself)
        async with SwarmClient(
            locate(TARGET), draft=locate(DRAFT), network=swarm.network, link_ms=LINK_MS
        ) as client:
            expected = await client.generate(PROMPT, max_new_tokens=NEW, owner=None)
            # Nothing is copied: the rest of the text would be on its way before the restart.
            text = {"max_new_tokens": NEW, "lookup": False, "owner": None}
            stream, said, upgrade = client.stream(PROMPT, patience_s=120.0, **text), 0, None
            async for _ in stream:
                said += 1
                if said == NEW // 4:
                    upgrade = asyncio.create_task(_upgrade(swarm, old, itself))
            assert upgrade is not None
            await upgrade
            assert stream.result.token_ids == expected.token_ids
            (failover,) = stream.result.stats.failovers
            assert failover.layers == (0, 8)
        assert swarm.peer_ids[0] == swarm.peer_ids[1]  # the same peer to all others


async def _upgrade(
    swarm: LocalSwarm, old: asyncio.subprocess.Process, itself: tuple[str, ...]
) -> None:
    """Restart a peer as `systemctl restart` does."""
    old.terminate()
    assert await soon(old.wait()) == 0
    await add_peer(swarm, 0, 8, *itself)
