"""What judging a frame costs on the client's CPU, with and without an int8 copy of the LM head.

A head of Llama-3.1-8B's size, with random weights, and answers whose logits are spread as those of
real texts are: some tens of tokens are several nats ahead of all others. Both ways take turns on
the same answers, and the least of their times counts. It is the CPU time of one thread: so other
programs on the computer change little.

    python tests/lab/head_cost.py
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from transformers import LlamaConfig

from swarm.client.judging import judge
from swarm.decoding.certificate import Choosing
from swarm.decoding.sampling import Sampling, gumbel_noise
from swarm.decoding.shaping import NO_SHAPING
from swarm.model.anatomy import skeleton, take_apart
from swarm.model.head import Head
from swarm.model.partial import cut

VOCABULARY, HIDDEN = 128_256, 4096
ROWS = (1, 4, 8, 16)
REPEATS = 5
TOP_TOKENS = 40  # that share a text's next place
WAYS = {"greedy": Sampling(), "temperature 1": Sampling(1.0, seed=1)}
HEADER = (
    "| rows | choice | float32, ms | int8 and few exact, ms | ratio | exact logits a row |",
    "|---:|---|---:|---:|---:|---:|",
)


def random_head() -> Head:
    """Return a head of random weights, made without a checkpoint."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=8,
        tie_word_embeddings=False,
    )
    parts = take_apart(skeleton("random", config), "random", config)
    model = skeleton("random", config)
    cut(model, parts, range(0), parts.head)
    model.to_empty(device="cpu").float().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            for rows in parameter.split(4096):
                rows.copy_(torch.randn(rows.shape).mul_(HIDDEN**-0.5))
    return Head(model, parts)


def answers(head: Head, rows: int) -> Tensor:
    """Return ``[rows, hidden]`` with some tokens ahead of the others, by up to ten nats."""
    weight: Tensor = head._model.get_output_embeddings().weight
    ahead = torch.linspace(10.0, 2.0, TOP_TOKENS)
    hidden = 2.5 * torch.randn(rows, HIDDEN)
    for row in hidden:
        row += ahead @ weight[torch.randint(VOCABULARY, (TOP_TOKENS,))]
    return hidden


def measure(head: Head, rows: int, sampling: Sampling) -> dict[str, Any]:
    """Return the times of both ways, and whether they chose the same."""
    hidden = answers(head, rows)
    choosing = Choosing(sampling, NO_SHAPING, (1,) * 64, tuple((2,) * i for i in range(rows)))
    dense_ms, rounded_ms = paired(
        lambda: choosing.choose(head.logits(hidden)), lambda: judge(head, hidden, choosing)
    )
    judged = judge(head, hidden, choosing)
    return {
        "rows": rows,
        "float32_ms": dense_ms,
        "rounded_ms": rounded_ms,
        "same": list(judged.choices) == choosing.choose(head.logits(hidden)),
        "refined": sum(judged.refined) / rows,
    }


def paired(*ways: Callable[[], object]) -> list[float]:
    """Return the least CPU time of each way in ms; they take turns, on this thread alone."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(REPEATS + 1):
        for way, taken in zip(ways, times, strict=True):
            gumbel_noise.cache_clear()
            started = time.thread_time()
            way()
            taken.append((time.thread_time() - started) * 1e3)
    return [min(taken[1:]) for taken in times]


@torch.inference_mode()
def head_cost() -> list[dict[str, Any]]:
    """Measure all numbers of rows; print a table."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    head = random_head()
    started = time.thread_time()
    head.round()
    if head.rounded is None:
        print("float32 is the fastest here")
        return []
    seconds = time.thread_time() - started
    print(
        f"made in {seconds:.1f} s of CPU time: {head.rounded.memory_bytes / 1e6:.0f} MB", flush=True
    )
    print("\n".join(HEADER))
    figures = []
    for name, sampling in WAYS.items():
        for rows in ROWS:
            figures.append({"choice": name, **measure(head, rows, sampling)})
            print(row_of(figures[-1]), flush=True)
    return figures


def row_of(figure: dict[str, Any]) -> str:
    ratio = figure["float32_ms"] / figure["rounded_ms"]
    differs = "" if figure["same"] else " (other choices!)"
    return (
        f"| {figure['rows']} | {figure['choice']}{differs} | {figure['float32_ms']:.0f}"
        f" | {figure['rounded_ms']:.0f} | {ratio:.1f} | {figure['refined']:.0f} |"
    )


def head_table(figures: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [*HEADER, *map(row_of, figures)]


if __name__ == "__main__":
    head_cost()
