"""The dtype in which a draft model is fastest on this computer.

A draft is a guess that the target judges. So its weights may be rounded as is fastest here, as long
as it stays a good guess: what rounding costs in agreement is far below what it gains in time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from swarm.model.compute import AUTO, SMALL_WEIGHTS, ComputeOptions
from swarm.model.device import choose_device, has_bfloat16
from swarm.model.kernels.int8_linear import cpu_kernel
from swarm.model.kernels.measuring import Clock, cpu_clock, least_in_turn_s, least_s
from swarm.model.kernels.rounding import rounded_weight
from swarm.model.quantization import NF4

LEAVES = 8  # of a draft's tree, in one pass: the rows of the products
SAMPLE_WEIGHTS = 16_000_000  # more than the caches of most processors hold, even in 8 bits
BLOCK_ROWS = 256  # of the sample: random, and then repeated
RUNS = 3  # the fastest counts
ATTENTION = (8, 16, 512, 128)  # groups of heads, rows, keys and the width of a head
CACHES = 16  # of layers, more than the caches of most processors hold
WORTH = 1.2  # a later one of `CANDIDATES` must be faster by this factor


@dataclass(frozen=True)
class DraftPlacement:
    """Where a draft model is loaded, and the name of the dtype of its weights."""

    device: torch.device
    dtype: str


def check_compute(options: ComputeOptions) -> None:
    """Check that this computer can do what is asked for, before anything is loaded.

    Raises:
        NoSuchDevice: if a device is not there.
        ConfigError: if a library is missing, or does not know the device.
    """
    choose_device(options.device)
    device = choose_device(options.drafts_on)
    if options.draft_dtype == NF4.name:
        NF4.check(device, "draft_dtype")


def place(options: ComputeOptions, weights: int, columns: int) -> DraftPlacement:
    """Return where a draft model computes, and in which dtype.

    Args:
        weights: of the model.
        columns: the inputs of most of its linear layers.

    Raises:
        NoSuchDevice: if the device is not there.
    """
    device = choose_device(options.drafts_on, weights)
    dtype = options.draft_dtype
    if dtype == AUTO:
        dtype = "float32" if weights < SMALL_WEIGHTS else _fastest(device, columns)
    return DraftPlacement(device, dtype)


def _fastest(device: torch.device, columns: int) -> str:
    if device.type == "cpu":
        return fastest_on_cpu(columns)
    return "bfloat16" if has_bfloat16(device) else "float32"


@torch.inference_mode()
def fastest_on_cpu(columns: int, clock: Clock = cpu_clock) -> str:
    """Measure a product of `LEAVES` rows in every dtype, and return the fastest dtype's name.

    Takes half a second.
    """
    x = torch.randn(LEAVES, columns)
    block = torch.randn(BLOCK_ROWS, columns)
    copies = max(1, SAMPLE_WEIGHTS // block.numel())
    best = ""
    best_s = float("inf")
    for dtype, product_of in CANDIDATES.items():
        product = product_of(block, copies)
        took_s = least_s(lambda: product(x), RUNS, clock)  # noqa: B023
        if took_s * WORTH < best_s:
            best, best_s = dtype, took_s
    return best


@lru_cache
@torch.inference_mode()
def fastest_cache_dtype() -> torch.dtype:
    """Return the dtype of keys and values in which this computer's CPU attends faster.

    Takes a tenth of a second.
    """
    groups, rows, keys, width = ATTENTION
    caches = torch.randn(CACHES, 2, 1, groups, keys, width)
    query = torch.randn(1, groups, rows, width)
    mask = torch.zeros(rows, keys)

    def works_in(dtype: torch.dtype) -> Callable[[], object]:
        own = caches.to(dtype)
        small = mask.to(dtype)

        def work() -> None:
            for key, value in own:
                rows_in_dtype = query.to(dtype)
                scaled_dot_product_attention(rows_in_dtype, key, value, attn_mask=small).float()

        return work

    dtypes = (torch.float32, torch.bfloat16)
    times_s = least_in_turn_s([works_in(dtype) for dtype in dtypes], RUNS)
    return min(zip(times_s, range(len(dtypes)), dtypes, strict=True))[-1]


def _float32(block: Tensor, copies: int) -> Callable[[Tensor], Tensor]:
    weight = block.repeat(copies, 1)
    return lambda x: linear(x, weight)


def _bfloat16(block: Tensor, copies: int) -> Callable[[Tensor], Tensor]:
    weight = block.to(torch.bfloat16).repeat(copies, 1)
    return lambda x: linear(x.to(torch.bfloat16), weight)


def _int8(block: Tensor, copies: int) -> Callable[[Tensor], Tensor]:
    rounded, scale = rounded_weight(block)
    return cpu_kernel()(rounded.repeat(copies, 1), scale.repeat(copies))


# Nothing is rounded without need. Then fewer bytes come first: the sample may fit into a cache in
# which the draft does not, and the LM head that judges beside it reads memory, too.
CANDIDATES = {"float32": _float32, "int8": _int8, "bfloat16": _bfloat16}
