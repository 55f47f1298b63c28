"""What a batch takes on a device: by its positions, by the sessions in it, and by dtype."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from gpu.report import Table
from gpu.sizes import Sizes
from gpu.spans import relative_error
from swarm.model.checkpoint import Checkpoint
from swarm.model.self_check import ROUGH_TOLERANCE
from swarm.model.span import Span
from swarm.model.work import Work

WARM_UP = 3
DTYPES = (torch.bfloat16, torch.float32)
COMPARED = (1, 8, 64)  # positions of a batch


def stage_times(sizes: Sizes, device: torch.device, folder: Path) -> Table:
    """Measure a span of some layers, and scale to all layers of the model."""
    span = _load(sizes.write_span(folder), torch.bfloat16, device)
    layers = sizes.shape.layers
    table = Table(("sessions", "positions each", "ms", "ms a layer", f"ms for {layers}"))
    for sessions, positions in _batches(sizes):
        ms, outputs = measure(span, sizes, sessions, positions)
        layer_ms = ms / sizes.layers
        figures = (f"{ms:.2f}", f"{layer_ms:.3f}", f"{layer_ms * layers:.1f}")
        table.add(sessions, positions, *figures, passed=bool(outputs.isfinite().all()))
    table.notes.append(
        f"{sizes.layers} layers of {sizes.shape.name} in bfloat16, random weights; each session "
        f"holds {sizes.held} tokens. Inputs come from the CPU and outputs go there, as on a peer."
    )
    return table


def dtypes_compared(sizes: Sizes, device: torch.device, folder: Path) -> Table:
    """Compare bfloat16 with float32 on the same device: time, and how far the outputs are."""
    checkpoint = sizes.write_span(folder)
    table = Table(("positions", *(f"{_name(dtype)} ms" for dtype in DTYPES), "error", "at most"))
    positions = [each for each in COMPARED if each <= max(sizes.positions)]
    ms: dict[int, list[float]] = {each: [] for each in positions}
    outputs: dict[int, list[Tensor]] = {each: [] for each in positions}
    for dtype in DTYPES:
        span = _load(checkpoint, dtype, device)
        for each in positions:
            took_ms, output = measure(span, sizes, 1, each)
            ms[each].append(took_ms)
            outputs[each].append(output)
        del span
    for each in positions:
        error = relative_error(*outputs[each])
        figures = [f"{took_ms:.2f}" for took_ms in ms[each]]
        row = (each, *figures, f"{error:.1e}", f"{ROUGH_TOLERANCE:g}")
        table.add(*row, passed=error <= ROUGH_TOLERANCE)
    return table


def measure(span: Span, sizes: Sizes, sessions: int, positions: int) -> tuple[float, Tensor]:
    """Return the median milliseconds of a batch, and the outputs of the last one.

    Each session's tokens take the same rows again and again, behind what it holds.
    """
    draw = torch.Generator().manual_seed(sessions)

    def hidden(count: int) -> Tensor:
        return torch.randn((count, span.hidden_size), generator=draw).to(span.dtype)

    caches = [span.new_cache() for _ in range(sessions)]
    for cache in caches:
        span.forward([Work.behind(cache, hidden(sizes.held))])
    inputs = [hidden(positions) for _ in caches]
    works = [Work.behind(cache, rows) for cache, rows in zip(caches, inputs, strict=True)]
    outputs = span.forward(works)

    def again() -> None:
        nonlocal outputs
        outputs = span.forward(works)

    return timed_ms(again, sizes.steps), torch.cat(outputs)


def timed_ms(run: Callable[[], object], steps: int) -> float:
    """Return the median milliseconds of a call that ends when the device has finished."""
    for _ in range(WARM_UP):
        run()
    took = []
    for _ in range(steps):
        started = time.perf_counter()
        run()
        took.append((time.perf_counter() - started) * 1e3)
    return median(took)


def _batches(sizes: Sizes) -> list[tuple[int, int]]:
    """Return pairs of sessions and positions of each."""
    return [(1, each) for each in sizes.positions] + [(each, 1) for each in sizes.sessions[1:]]


def _load(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Span:
    """Load all layers but the first: a stage whose inputs are hidden states."""
    return Span.load(checkpoint, 1, checkpoint.num_layers, dtype=dtype, device=device)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
