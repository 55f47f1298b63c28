"""The client of a laboratory run.

It is a process of its own, because it runs inside a host of the emulated internet::

    client.py BOOTSTRAP

It reads one JSON request a line from standard input and writes one JSON answer a line. A request is
an object with ``do`` and the arguments of one of the functions below. The client ends when its
input does.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch

from swarm.bench.compare import compare
from swarm.bench.figures import all_figures
from swarm.bench.ways import Way
from swarm.client.client import SwarmClient
from swarm.config import Network
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import NETWORK
from swarm.demo.problems import problems
from swarm.errors import SwarmError, SwarmIncomplete
from swarm.outputs import Generation

SEED = 41  # of the held-out problems
WARM_UP_TOKENS = 12


async def compare_ways(
    client: SwarmClient,
    ways: Sequence[dict[str, Any]],
    prompts: int,
    max_new_tokens: int,
    plain_tokens: int,
) -> dict[str, Any]:
    """Return the figures of every way, plain decoding first; each prompt runs in all ways."""
    chosen = [Way(**way) for way in ways]
    for way in chosen:
        await client.generate(_prompts(1)[0], **{**way.options, "max_new_tokens": WARM_UP_TOKENS})
    comparisons = [
        await compare(
            client, prompt, chosen, max_new_tokens=max_new_tokens, plain_tokens=plain_tokens
        )
        for prompt in _prompts(prompts)
    ]
    kept = [comparison.ways[way.name].stats for comparison in comparisons for way in chosen[-1:]]
    return {
        "figures": [asdict(row) for row in all_figures(comparisons, chosen)],
        "acceptance_by_position": list(kept[0].acceptance_by_position) if kept else [],
    }


async def side_by_side(
    client: SwarmClient, way: dict[str, Any], sessions: int, max_new_tokens: int
) -> dict[str, Any]:
    """Run generations of equal length side by side, and return the speed of each and of all."""
    options = {**Way(**way).options, "max_new_tokens": max_new_tokens}
    started = time.perf_counter()
    generations = await asyncio.gather(
        *(client.generate(prompt, **options) for prompt in _prompts(sessions))
    )
    seconds = time.perf_counter() - started
    rates = [generation.stats.tokens_per_second for generation in generations]
    return {
        "tokens_per_second": (
            sum(generation.stats.new_tokens for generation in generations) / seconds
        ),
        "rates": rates,
        "positions": sum(g.stats.positions_per_token or 0.0 for g in generations) / sessions,
        "queue_ms": max(max(g.stats.stage_queue_ms, default=0.0) for g in generations),
    }


async def write(
    client: SwarmClient, skip: int, prompts: int, max_new_tokens: int, standby: bool = False
) -> dict[str, Any]:
    """Return texts of a fixed length, generated one by one, and the failovers meanwhile."""
    endless = dict.fromkeys(client.models.checkpoint.eos_token_ids, -100.0)
    texts = []
    for prompt in _prompts(skip + prompts)[skip:]:
        text: Generation | None = None
        error = None
        try:
            text = await client.generate(
                prompt, max_new_tokens=max_new_tokens, logit_bias=endless, standby=standby
            )
        except SwarmIncomplete as incomplete:
            text, error = incomplete.generation, str(incomplete)
        except SwarmError as failure:
            error = str(failure)
        texts.append(
            {
                "token_ids": text.token_ids if text else (),
                "tokens_per_second": text.stats.tokens_per_second if text else 0.0,
                "failovers": (
                    [asdict(failover) for failover in text.stats.failovers] if text else []
                ),
                "error": error,
            }
        )
    return {"texts": texts}


def _prompts(count: int) -> list[str]:
    return [problem.prompt for problem in islice(problems(SEED, held_out=True), count)]


DO = {"compare": compare_ways, "side_by_side": side_by_side, "write": write}


async def main(bootstrap: str, link_ms: float) -> None:
    network = Network(NETWORK, (bootstrap,))
    async with SwarmClient(
        locate(TARGET), draft=locate(DRAFT), network=network, link_ms=link_ms
    ) as client:
        print(json.dumps({"up": True}), flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            request = json.loads(line)
            print(json.dumps(await DO[request.pop("do")](client, **request)), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
