"""Processes that are killed or stopped while a text is generated: the text stays the same."""

import signal
from collections.abc import AsyncIterator, Callable
from itertools import islice

import pytest
import pytest_asyncio

from helpers.local_swarm import replace_peer
from swarm.client.client import SwarmClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm
from swarm.demo.problems import problems
from swarm.errors import SwarmIncomplete
from swarm.outputs import Generation

SPANS = [(0, 4), (4, 8)]
LINK_MS = 20.0
NEW = 60
PROMPTS = [problem.prompt for problem in islice(problems(seed=43, held_out=True), 4)]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("warmly")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def swarm(warmly: None) -> AsyncIterator[LocalSwarm]:
    """Start a swarm that serves every layer twice."""
    async with LocalSwarm(TARGET, SPANS * 2, LINK_MS) as swarm:
        yield swarm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(swarm: LocalSwarm) -> AsyncIterator[SwarmClient]:
    options = {"draft": locate(DRAFT), "network": swarm.network, "link_ms": LINK_MS}
    async with SwarmClient(locate(TARGET), **options) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expected(client: SwarmClient) -> list[Generation]:
    """Return the undisturbed texts."""
    return list(await client.generate_many(PROMPTS, max_new_tokens=NEW, owner=None))


async def write(
    swarm: LocalSwarm,
    client: SwarmClient,
    prompt: str,
    stage: int,
    strike: Callable[[int], None],
    **options: float,
) -> Generation:
    """Generate a text; in the middle, do something to the process that serves a stage.

    Nothing is copied: the rest of the text would be on its way before.
    """
    text = {"max_new_tokens": NEW, "lookup": False, "owner": None}
    stream, said = client.stream(prompt, **text, **options), 0
    async for _ in stream:
        said += 1
        if said == NEW // 4:
            strike(swarm.peer_ids.index(stream.route[stage].peer_id))
    return stream.result


@pytest.mark.parametrize("stage", [0, 1])
async def test_a_peer_is_killed(
    stage: int, swarm: LocalSwarm, client: SwarmClient, expected: list[Generation]
) -> None:
    killed = []

    def kill(number: int) -> None:
        killed.append(number)
        swarm.peers[number].kill()

    text = await write(swarm, client, PROMPTS[stage], stage, kill)
    assert text.token_ids == expected[stage].token_ids
    assert [failover.layers for failover in text.stats.failovers] == [SPANS[stage]]
    await replace_peer(swarm, killed[0])


async def test_a_peer_hangs(
    swarm: LocalSwarm, client: SwarmClient, expected: list[Generation]
) -> None:
    """The process is stopped: its links stay open, and nothing comes out of them."""
    stopped = []

    def stop(number: int) -> None:
        stopped.append(number)
        swarm.peers[number].send_signal(signal.SIGSTOP)

    try:
        text = await write(swarm, client, PROMPTS[2], 1, stop)
    finally:
        swarm.peers[stopped[0]].send_signal(signal.SIGCONT)
    assert text.token_ids == expected[2].token_ids
    assert [failover.layers for failover in text.stats.failovers] == [SPANS[1]]


async def test_nobody_is_left_and_the_text_is_continued_later(
    swarm: LocalSwarm, client: SwarmClient, expected: list[Generation]
) -> None:
    def kill_both(_: int) -> None:
        for number in (1, 3):
            swarm.peers[number].kill()

    with pytest.raises(SwarmIncomplete) as caught:
        await write(swarm, client, PROMPTS[3], 1, kill_both, patience_s=2.0)
    assert "layers 4:8" in str(caught.value)
    begun = caught.value.generation
    assert begun is not None
    assert begun.stats.finish_reason == "swarm_incomplete"
    await replace_peer(swarm, 1)
    prompt = client.models.tokenizer(PROMPTS[3]).input_ids
    rest = await client.generate(
        [*prompt, *begun.token_ids], max_new_tokens=NEW - len(begun.token_ids)
    )
    assert begun.token_ids + rest.token_ids == expected[3].token_ids
