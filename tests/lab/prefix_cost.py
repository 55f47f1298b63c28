"""How much sooner a text begins whose beginning the peers of a chain hold: fresh and forked.

Prints a table; nothing is asserted.

    python tests/lab/prefix_cost.py [--tokens 4000] [--own 32] [--repeats 3] [MODEL FOLDER]

Peers and client are real and share this process, over loopback: three peers with a third of the
layers each. Without a folder, the model is a Llama of 8 layers, 512 wide, with random weights. Each
round writes three conversations. The first one's prompt is read by itself, and its session is kept.
The second one's begins with the same tokens and is forked from it. The third one is that prompt
again, fresh: its text has to be the second one's.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.loopback import WORDS, tokenizer_of
from helpers.swarm_in_process import Material, Swarm
from swarm.client.models import ClientModels
from swarm.demo.local import even_spans
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span

NEW = 8
CHAIN = 3  # peers
HEADER = f"{'':10} {'prompt':>7} {'not read':>9} {'first token':>12}"


def random_model(folder: Path, positions: int) -> None:
    """Save a model whose layers take a CPU some time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=positions,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer_of(WORDS).save_pretrained(folder)


def load(folder: Path) -> tuple[Material, list[tuple[int, int]]]:
    """Return the peers' spans and the client's models, and how the chain is cut."""
    checkpoint = Checkpoint.open(str(folder))
    stages = even_spans(checkpoint.num_layers, CHAIN)
    spans = {stage: Span.load(checkpoint, *stage) for stage in stages}
    return Material(checkpoint, spans, ClientModels.of(checkpoint, None)), stages


async def write(swarm: Swarm, prompt: list[int], keep: bool) -> tuple[float, int, tuple[int, ...]]:
    """Return the seconds to the first token, the tokens that were not read, and the text."""
    stream = swarm.stream(prompt, keep=keep, max_new_tokens=NEW, lookup=False)
    started = time.perf_counter()
    first_s = 0.0
    async for _ in stream:
        first_s = first_s or time.perf_counter() - started
    return first_s, stream.result.stats.cached_tokens, stream.result.token_ids


async def rounds(material: Material, stages: list[tuple[int, int]], of: argparse.Namespace) -> None:
    swarm = Swarm(material)
    await swarm.add(*stages, cache_tokens=4 * (of.tokens + 1024))
    chance = random.Random(0)
    vocabulary = min(material.checkpoint.vocab_size, 4096)

    def some(count: int) -> list[int]:
        return [chance.randrange(3, vocabulary) for _ in range(count)]

    fresh: list[float] = []
    forked: list[float] = []
    print(HEADER)
    await write(swarm, some(64), keep=False)  # connections, and memory that is touched first
    for _ in range(of.repeats):
        shared = some(of.tokens)
        prompt = [*shared, *some(of.own)]
        await write(swarm, [*shared, *some(of.own)], keep=True)
        second = await write(swarm, prompt, keep=True)
        third = await write(swarm, prompt, keep=False)
        for name, (first_s, cached, _) in (("fresh", third), ("shared", second)):
            print(f"{name:10} {len(prompt):7,} {cached:9,} {first_s:10.2f} s", flush=True)
        if second[2] != third[2]:
            print("the texts differ")
        fresh.append(third[0])
        forked.append(second[0])
    print(
        f"medians: fresh {median(fresh):.2f} s, shared {median(forked):.2f} s,"
        f" {median(fresh) / median(forked):.1f} times as fast"
    )
    await swarm.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=4000, help="that the prompts share")
    parser.add_argument("--own", type=int, default=32, help="that each prompt has of its own")
    parser.add_argument("--repeats", type=int, default=3)
    of = parser.parse_args()
    with TemporaryDirectory() as made:
        os.environ.setdefault("SWARM_CACHE", f"{made}/cache")
        folder = of.folder or Path(made) / "model"
        if of.folder is None:
            random_model(folder, of.tokens + of.own + 1024)
        material, stages = load(folder)
        asyncio.run(rounds(material, stages, of))


if __name__ == "__main__":
    main()
