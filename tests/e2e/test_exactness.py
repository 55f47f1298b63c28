"""A swarm's text is the whole model's, token for token; drafting changes only the time."""

import asyncio
import os
from collections.abc import Sequence
from itertools import islice

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from swarm.client.client import SwarmClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm, even_spans
from swarm.demo.problems import problems
from swarm.outputs import Generation
from swarm.request import Options

# of every prompt on every chain: misses, rollbacks and digits all occur in the first sentence
NEW_TOKENS = 20
WAYS: Sequence[Options] = (
    {"window": 0},
    *({"window": window, "depth": 1} for window in (1, 4, 8, 16)),
    {"branches": 1},
    {"branches": 2, "depth": 4},
    {},
)
# Every prompt in every way on every chain takes a quarter of an hour on two cores. Usually each way
# has one prompt.
EVERY_WAY = bool(os.environ.get("SWARM_TEST_EVERY_WINDOW"))
COUNT = 50 if EVERY_WAY else len(WAYS)
PROMPTS = [problem.prompt for problem in islice(problems(2026, held_out=True), COUNT)]
TO_THE_END = 200  # tokens: every solution ends before
LONG = len(PROMPTS) // 2  # of the prompts are continued to the end, and sampled
LAYERS = 8
UNEVEN = 3  # peers that do not serve equally many layers
AT_ONCE = 5  # generations side by side: peers then compute several sessions in one forward


pytestmark = pytest.mark.usefixtures("warmly")


@pytest.fixture(scope="module")
def reference() -> list[tuple[int, ...]]:
    """Return transformers' greedy new tokens of the whole target model."""
    tokenizer = AutoTokenizer.from_pretrained(locate(TARGET))
    model = AutoModelForCausalLM.from_pretrained(locate(TARGET), dtype=torch.float32)
    texts = []
    for number, prompt in enumerate(PROMPTS):
        inputs = tokenizer(prompt, return_tensors="pt")
        length = TO_THE_END if number < LONG else NEW_TOKENS
        output = model.generate(**inputs, max_new_tokens=length, do_sample=False)
        texts.append(tuple(output[0, inputs.input_ids.shape[1] :].tolist()))
    return texts


@pytest.mark.parametrize("peers", [1, UNEVEN, LAYERS])
async def test_a_swarm_says_what_the_model_says(
    peers: int, reference: list[tuple[int, ...]]
) -> None:
    # Starting a swarm takes long. Over links that take no time, hardly a branch is sent.
    to_the_end = peers == UNEVEN
    link_ms = 10.0 if to_the_end else 0.0
    spans = even_spans(LAYERS, peers)
    async with LocalSwarm(TARGET, spans, link_ms) as swarm, _client(swarm, link_ms) as client:
        await _greedy_output_is_that_of_transformers(client, peers, reference)
        if to_the_end:
            await _and_to_the_end(client, reference)
            for temperature in (0.7, 1.0):
                await _sampled_output_is_the_same_with_and_without_drafting(client, temperature)


async def _greedy_output_is_that_of_transformers(
    client: SwarmClient, peers: int, reference: list[tuple[int, ...]]
) -> None:
    for shift in range(len(WAYS) if EVERY_WAY else 1):
        ways = [WAYS[(i + shift) % len(WAYS)] for i in range(len(reference))]
        generations = await _generate_all(client, ways)
        assert [g.token_ids for g in generations] == [tokens[:NEW_TOKENS] for tokens in reference]
        assert [len(g.route) for g in generations] == [peers] * len(reference)
        drafted = [generation.stats.drafted_tokens > 0 for generation in generations]
        # Left to itself, a client may find that drafting does not pay on a busy machine.
        sized = [place for place, way in enumerate(ways) if "window" in way]
        assert [drafted[i] for i in sized] == [ways[i]["window"] != 0 for i in sized]
        assert any(drafted)


async def _and_to_the_end(client: SwarmClient, reference: list[tuple[int, ...]]) -> None:
    # without copies, which take the places of the draft's choices
    ways: Sequence[Options] = [{"lookup": False}] * LONG
    generations = await _generate_all(client, ways, max_new_tokens=TO_THE_END)
    assert sum(g.stats.branch_tokens for g in generations) > 0
    assert [g.token_ids for g in generations] == reference[:LONG]
    assert {g.stats.finish_reason for g in generations} == {"stop"}


async def _sampled_output_is_the_same_with_and_without_drafting(
    client: SwarmClient, temperature: float
) -> None:
    plain = await _generate_all(client, [{"window": 0}] * LONG, temperature=temperature)
    waiting_and_streaming: Sequence[Options] = [{"window": 8, "depth": 1}, {}] * (LONG // 2)
    drafted = await _generate_all(client, waiting_and_streaming, temperature=temperature)
    assert [g.token_ids for g in drafted] == [g.token_ids for g in plain]
    assert sum(g.stats.loops for g in drafted) < sum(g.stats.loops for g in plain)
    other = await client.generate(
        PROMPTS[0], temperature=temperature, seed=10_000, max_new_tokens=NEW_TOKENS
    )
    assert other.token_ids != plain[0].token_ids


def _client(swarm: LocalSwarm, link_ms: float) -> SwarmClient:
    return SwarmClient(locate(TARGET), draft=locate(DRAFT), network=swarm.network, link_ms=link_ms)


async def _generate_all(
    client: SwarmClient,
    ways: Sequence[Options],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = NEW_TOKENS,
) -> Sequence[Generation]:
    """Generate a prompt in each way, each with a seed of its own, a few at a time."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int) -> Generation:
        async with slots:
            fixed: Options = {
                "temperature": temperature,
                "max_new_tokens": max_new_tokens,
                "seed": seed,
            }
            return await client.generate(PROMPTS[seed], **{**ways[seed], **fixed})

    return await asyncio.gather(*(one(seed) for seed in range(len(ways))))
