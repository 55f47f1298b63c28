"""The section on draft models: a pass over a tree in every dtype, and beside a head that judges.

The model has the size of Qwen3-0.6B, with random weights. Dtypes take turns, pass by pass, so that
their ratios are side by side. Fewer rows of its head are measured, too.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from swarm.client.cpu_threads import Cores, CpuThreads, Executors
from swarm.model.branching import BranchingModel
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.loading import branching_of, load_draft
from swarm.model.kernels.int8_linear import Int8Linear
from swarm.shapes.catalogue import SHAPES
from swarm.shapes.folder import write_draft
from swarm.wire.token_tree import TokenTree

SHAPE = SHAPES["qwen3-8b"]  # whose draft has a vocabulary of 152k
FEW_ROWS = 32_768  # of the head, as with `--draft-vocab 32768`
# Dtypes and rows of the head; 0 for all. The first one is how every draft was loaded before.
WEIGHTS = {
    "float32": ("float32", 0),
    "bfloat16": ("bfloat16", 0),
    "int8": ("int8", 0),
    f"int8, {FEW_ROWS:,} rows of the head": ("int8", FEW_ROWS),
}
LEAVES = (1, 8)
TEXT_TOKENS = 256  # that the cache holds
PASSES = 15  # of each dtype; the median counts
BESIDE_S = 5.0  # that drafting and judging go on side by side
FRAME_ROWS = 4  # that the head judges at once
Row = dict[str, Any]


async def drafts() -> AsyncIterator[Row]:
    """Measure passes in every dtype, then drafting beside judging."""
    with tempfile.TemporaryDirectory(prefix="swarm-draft-") as folder:
        write_draft(SHAPE, Path(folder))
        passes = {name: Passes(loaded(folder, *each)) for name, each in WEIGHTS.items()}
    for leaves in LEAVES:
        taken = turns({name: each.of(leaves) for name, each in passes.items()})
        before_ms = median(taken["float32"])
        for name, times in taken.items():
            ms = median(times)
            yield {"weights": name, "leaves": leaves, "ms": ms, "speedup": before_ms / ms}
    async for row in beside(passes["int8"]):
        yield row


def loaded(folder: str, dtype: str, rows: int) -> BranchingModel | None:
    """Return the draft model of a folder, with the first rows of its head, or with all."""
    options = ComputeOptions(device="cpu", draft_dtype=dtype)
    return branching_of(load_draft(folder, options, lambda _: torch.arange(rows) if rows else None))


class Passes:
    """A draft model that has read a text, whose continuation it reads again and again."""

    def __init__(self, branching: BranchingModel | None, text_tokens: int = TEXT_TOKENS) -> None:
        assert branching is not None
        self.reader = branching.reader()
        self._text = text_tokens
        self._tree = TokenTree()
        self._next = 1
        self.read(text_tokens)

    def of(self, leaves: int) -> Callable[[], None]:
        """Return a pass over tokens that all follow the text's last one."""
        return lambda: self.read(leaves, leaves)

    def read(self, count: int, leaves: int = 1) -> None:
        root = 0 if self._next == 1 else self._text
        parents = [self._next + place - root for place in range(count)] if leaves > 1 else ()
        placement = self._tree.admit(0, root, self._next, count, parents)
        assert placement is not None
        self._next += count
        tokens = [2 + place for place in range(count)]
        self.reader.read(tokens, placement, range(count - leaves, count))


def turns(works: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Run all works in turn, and return the milliseconds of each run, after a warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(PASSES + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                taken[name].append((time.perf_counter() - started) * 1e3)
    return taken


async def beside(passes: Passes) -> AsyncIterator[Row]:
    """Draft and judge at the same time, with all cores for both, and with the cores shared out."""
    head = nn.Linear(SHAPE.hidden_size, SHAPE.vocab_size, bias=False, dtype=torch.bfloat16)
    judging = Int8Linear(head)
    del head
    threads = torch.get_num_threads()

    @torch.inference_mode()
    def judge() -> None:
        judging(torch.randn(FRAME_ROWS, SHAPE.hidden_size))

    for name, shared in (("all for both", False), ("shared out", True)):
        given = CpuThreads.shared(threads, beside=shared)
        with executors() as both:
            shared_out = Cores(given).share(both)
            draft_ms, judge_ms = await side_by_side(shared_out, passes.of(8), judge)
        yield {
            "threads": name,
            "drafting_threads": given.drafting,
            "judging_threads": given.judging,
            "draft_ms": draft_ms,
            "judge_ms": judge_ms,
        }


@contextmanager
def executors() -> Iterator[Executors]:
    with ThreadPoolExecutor(1) as drafting, ThreadPoolExecutor(1) as judging:
        yield Executors(drafting, judging)


async def side_by_side(
    both: Executors, draft: Callable[[], None], judge: Callable[[], None]
) -> tuple[float, float]:
    """Return the median milliseconds of drafting and of judging, beside each other."""
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + BESIDE_S
    return tuple(  # type: ignore[return-value]  # two of them
        await asyncio.gather(
            loop.run_in_executor(both.drafting, _repeat, draft, until),
            loop.run_in_executor(both.judging, _repeat, judge, until),
        )
    )


def _repeat(work: Callable[[], None], until: float) -> float:
    times = []
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e3)
    return median(times)


def draft_tables(rows: Sequence[Row]) -> list[str]:
    """Return the two tables of the section."""
    lines = ["| weights | leaves | a pass | as fast as float32 |", "|---|---:|---:|---:|"]
    for row in rows:
        if "weights" in row:
            cells = (row["weights"], f"{row['leaves']}", f"{row['ms']:.0f} ms")
            lines.append(f"| {' | '.join(cells)} | {row['speedup']:.1f}x |")
    lines += ["", "| threads | drafting 8 leaves | judging 4 rows |", "|---|---:|---:|"]
    for row in rows:
        if "threads" in row:
            name = f"{row['threads']} ({row['drafting_threads']} and {row['judging_threads']})"
            lines.append(f"| {name} | {row['draft_ms']:.0f} ms | {row['judge_ms']:.0f} ms |")
    return lines
