"""What a client computes on a device: its head, and its draft model."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gpu.report import Table
from gpu.sizes import Sizes
from gpu.spans import CPU, relative_error
from gpu.speed import timed_ms
from swarm.decoding.drafting.drafter import Drafter
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.problems import problems
from swarm.errors import ConfigError
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import AUTO, DRAFT_DTYPES, ComputeOptions
from swarm.model.drafts.draft import DraftModel
from swarm.model.head import Head
from swarm.shapes.folder import write_draft, write_target
from swarm.wire.token_tree import TokenTree

HEAD_ROWS = (1, 4, 8, 16)
HEAD_TOLERANCE = 1e-4  # relative error of the logits, in float32
LEAVES = (1, 8)  # of a tree that is drafted in one forward
TEXT_TOKENS = 64  # that the draft has read
DRAFTED = 32  # tokens behind the text, at each of which a choice is compared
LEAST_AGREEMENT = {"float32": 1.0, "bfloat16": 0.8, "int8": 0.8, "nf4": 0.5}


def head_equals_the_cpus(sizes: Sizes, device: torch.device, folder: Path) -> Table:
    """Compare the logits of a head of real size, and time it on both."""
    write_target(sizes.shape, folder)
    checkpoint = Checkpoint.open(str(folder))
    on_cpu, on_device = Head.load(checkpoint), Head.load(checkpoint, device=device)
    table = Table(("rows", "CPU ms", f"{device} ms", "error", "at most", "equal choices"))
    draw = torch.Generator().manual_seed(1)
    for rows in HEAD_ROWS:
        hidden = torch.randn((rows, sizes.shape.hidden_size), generator=draw)
        expected, got = on_cpu.logits(hidden), on_device.logits(hidden).cpu()
        error = relative_error(got, expected)
        equal = int((got.argmax(-1) == expected.argmax(-1)).sum())
        heads = (on_cpu, on_device)
        ms = [timed_ms(partial(_logits, head, hidden), sizes.steps) for head in heads]
        times = (f"{took:.2f}" for took in ms)
        row = (rows, *times, f"{error:.1e}", f"{HEAD_TOLERANCE:.0e}", f"{equal} of {rows}")
        table.add(*row, passed=error <= HEAD_TOLERANCE and equal == rows)
    shape = sizes.shape
    table.notes.append(f"a head of {shape.vocab_size:,} x {shape.hidden_size:,} in float32")
    return table


def _logits(head: Head, hidden: Tensor) -> Tensor:
    return head.logits(hidden).cpu()  # where decisions are made


def draft_equals_the_cpus(sizes: Sizes, device: torch.device, folder: Path) -> Table:
    """Compare the demonstration's draft model with itself in float32 on the CPU.

    Each choice is compared behind the same tokens, on paths of a tree that is read at once.
    """
    target = Checkpoint.open(locate(TARGET))
    tokenizer = target.tokenizer()
    text = tokenizer(next(iter(problems(7, held_out=True))).prompt).input_ids

    def drafter(where: torch.device, dtype: str) -> Drafter:
        model = _load(locate(DRAFT), target, tokenizer, where, dtype)
        return model.drafter(Sampling(), NO_SHAPING, frozenset())

    [line] = drafter(CPU, "float32").draft_each(text, [()], DRAFTED)
    expected = [guess.token for guess in line]
    paths = [tuple(expected[:place]) for place in range(len(expected))]
    table = Table(("dtype", "tokens", "equal", "at least"))
    for dtype, least in LEAST_AGREEMENT.items():
        try:
            guesses = drafter(device, dtype).draft_each(text, paths, 1)
        except ConfigError as error:  # the extra is not installed
            table.notes.append(f"{dtype}: not checked ({error})")
            continue
        got = [guess.token for [guess] in guesses]
        equal = sum(a == b for a, b in zip(got, expected, strict=True)) / len(expected)
        table.add(dtype, len(got), f"{equal:.0%}", f"{least:.0%}", passed=equal >= least)
    return table


def draft_times(sizes: Sizes, device: torch.device, folder: Path) -> Table:
    """Time a draft model of real size by dtype and by the leaves that grow in one forward."""
    write_target(sizes.shape, folder / "target")
    write_draft(sizes.shape, folder / "draft")
    target = Checkpoint.open(str(folder / "target"))
    tokenizer = target.tokenizer()
    table = Table(("device", "dtype", *(f"ms, leaves: {each}" for each in LEAVES), "auto"))
    for where in dict.fromkeys((device, CPU)):
        chosen = _load(str(folder / "draft"), target, tokenizer, where, AUTO).dtype
        for dtype in DRAFT_DTYPES:
            if dtype == AUTO:
                continue
            try:
                model = _load(str(folder / "draft"), target, tokenizer, where, dtype)
            except ConfigError as error:
                table.notes.append(f"{dtype} on {where}: not measured ({error})")
                continue
            times = (f"{_pass_ms(model, leaves, sizes.steps):.1f}" for leaves in LEAVES)
            table.add(where, dtype, *times, "chosen" if dtype == chosen else "")
            del model
    return table


def _load(
    draft: str,
    target: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    dtype: str,
) -> DraftModel:
    options = ComputeOptions(device=str(device), draft_device=str(device), draft_dtype=dtype)
    return DraftModel.load(draft, target, tokenizer, options)


def _pass_ms(model: DraftModel, leaves: int, steps: int) -> float:
    """Return the milliseconds of a forward that reads one token at each leaf of a tree."""
    assert model.branching is not None
    reader = model.branching.reader()
    tree = TokenTree()
    text = [5] * TEXT_TOKENS
    placed = tree.admit(0, 0, 1, TEXT_TOKENS)
    assert placed is not None
    reader.read(text, placed, [TEXT_TOKENS - 1])

    def grow() -> None:
        first = tree.last + 1
        parents = [first + leaf - TEXT_TOKENS for leaf in range(leaves)]  # all follow the text
        grown = tree.admit(tree.epoch + 1, TEXT_TOKENS, first, leaves, parents)
        assert grown is not None
        reader.read([7] * leaves, grown, range(leaves)).argmax(-1).tolist()

    return timed_ms(grow, steps)
