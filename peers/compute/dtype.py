"""In which dtype the layers compute here: ``--dtype auto``.

A CPU with matrix instructions for bfloat16 (AVX512-BF16, AMX) multiplies several rows three to
eight times as fast in bfloat16 as in float32; another one takes longer. No list of processors
decides which: both are measured.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import linear

from swarm.model.checkpoint import Checkpoint
from swarm.model.kernels.measuring import Clock, cpu_clock, least_in_turn_s

ROWS = (4, 16)  # of frames with drafts; a single row waits for memory in any dtype
MAX_WEIGHTS = 1 << 21  # of the measured product: 8 MiB in float32
# A CPU's matrix unit wakes up slowly: the first dozens of products in bfloat16 took twice as long
# as later ones.
ROUNDS = 64
WORTH = 1.25  # bfloat16 must gain this factor: of near-ties it may choose another one than float32
TRAVELLING = (torch.float32, torch.bfloat16, torch.float16)
# As safetensors calls them.
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def choose_dtype(
    checkpoint: Checkpoint,
    device: torch.device,
    bfloat16_pays: "Callable[[int], bool] | None" = None,
) -> torch.dtype:
    """Return the dtype to compute in: the checkpoint's on a GPU; on a CPU float32, or bfloat16 for
    plain weights in bfloat16 where that is faster.

    Quantized layers, also those of a publisher, compute in float32 on a CPU: their products are not
    those that are measured.

    Args:
        bfloat16_pays: returns whether bfloat16 is faster for a model of this width; None measures.
    """
    own = checkpoint_dtype(checkpoint)
    if device.type != "cpu":
        return own
    quantized = checkpoint.quantization is not None or checkpoint.is_packed
    if own != torch.bfloat16 or quantized:
        return torch.float32
    pays = bfloat16_pays or measure_bfloat16
    return torch.bfloat16 if pays(checkpoint.hidden_size) else torch.float32


def checkpoint_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """Return the dtype that the configuration names, else that of most stored weights.

    It is float32 where neither is known, or no such hidden states travel.
    """
    own = getattr(checkpoint.config, "dtype", None)
    if own is None:
        numel: Counter[str] = Counter()
        for stored in checkpoint.stored().values():
            numel[stored.dtype] += torch.Size(stored.shape).numel()
        own = STORED.get(numel.most_common(1)[0][0]) if numel else None
    return own if own in TRAVELLING else torch.float32


def measure_bfloat16(width: int, clock: Clock = cpu_clock) -> bool:
    """Return whether products of `ROWS` rows with bfloat16 weights are faster by `WORTH`.

    One thread computes, and its own time counts, so that other programs on these cores disturb it
    little. The dtypes take turns, and the least time of each counts. Takes a tenth of a second, and
    half a second where bfloat16 is slow.

    Args:
        width: of the model's hidden states.
        clock: seconds.
    """
    height = max(1, min(4 * width, MAX_WEIGHTS // width))
    with torch.inference_mode():
        weights = torch.randn(height, width)
        works = [
            partial(linear, torch.randn(rows, width).to(dtype), weights.to(dtype))
            for dtype in (torch.float32, torch.bfloat16)
            for rows in ROWS
        ]
        times_s = least_in_turn_s(works, ROUNDS, clock)
    full, half = sum(times_s[: len(ROWS)]), sum(times_s[len(ROWS) :])
    return full >= WORTH * half
