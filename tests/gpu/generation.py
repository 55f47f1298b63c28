"""A whole generation over peers on one device: real processes, the real wire, the demo model."""

import asyncio
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpu.report import Table
from gpu.sizes import Sizes
from swarm.client.client import SwarmClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm, even_spans
from swarm.demo.problems import problems
from swarm.outputs import Generation
from swarm.request import Options
from swarm.terminal.bottleneck import time_spent

LAYERS = 8
PEERS = 2
WAYS: dict[str, Options] = {"plain": {"window": 0}, "streaming": {}}


def text_equals_the_cpus(sizes: Sizes, device: torch.device, folder: Path) -> Table:
    """Generate greedily, with peers and client on the device; transformers says what is right."""
    prompts = [each.prompt for each in islice(problems(7, held_out=True), sizes.prompts)]
    expected = [_on_the_cpu(prompt, sizes.new_tokens) for prompt in prompts]
    found = asyncio.run(_generate(prompts, sizes.new_tokens, str(device)))
    table = Table(("prompt", "way", "tokens", "tokens/s", "loop ms", "identical", "time"))
    for number, (ways, right) in enumerate(zip(found, expected, strict=True), 1):
        for way, generation in ways.items():
            stats = generation.stats
            same = generation.token_ids == right
            figures = (f"{stats.tokens_per_second:.1f}", f"{stats.loop_ms:.1f}")
            time = time_spent(stats.share) if stats.share else ""
            row = (number, way, stats.new_tokens, *figures, "yes" if same else "NO", time)
            table.add(*row, passed=same)
    table.notes.append(f"{PEERS} peer processes and the client, all on {device}, in float32")
    return table


def _on_the_cpu(prompt: str, new_tokens: int) -> tuple[int, ...]:
    """Return the greedy new tokens of the whole model."""
    tokenizer = AutoTokenizer.from_pretrained(locate(TARGET))
    model = AutoModelForCausalLM.from_pretrained(locate(TARGET), dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
    return tuple(output[0, inputs.input_ids.shape[1] :].tolist())


async def _generate(
    prompts: Sequence[str], new_tokens: int, device: str
) -> list[dict[str, Generation]]:
    """Return the text of each prompt in every way."""
    options = ("--device", device, "--dtype", "float32")
    async with LocalSwarm(locate(TARGET), even_spans(LAYERS, PEERS), more=options) as swarm:
        client = SwarmClient(
            locate(TARGET),
            draft=locate(DRAFT),
            network=swarm.network,
            audit_rate=0.0,
            device=device,
            draft_device=device,
            draft_dtype="float32",
        )
        async with client:
            await client.generate(prompts[0], max_new_tokens=8)  # warm-up
            return [
                {
                    way: await client.generate(prompt, max_new_tokens=new_tokens, **ways)
                    for way, ways in WAYS.items()
                }
                for prompt in prompts
            ]
