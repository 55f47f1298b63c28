"""What packed weights cost: ``python -m swarm.eval.widening`` prints the table.

One thread of this computer's CPU multiplies a frame of tokens with one matrix, in each format in
which publishers store weights, and with the matrix in the dtype of the computation. The formats
take turns. What counts is the time that the thread computes, whatever else the computer does.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from swarm.model.kernels.measuring import least_in_turn_s
from swarm.model.stored.float4 import DIVIDED, Float4
from swarm.model.stored.float8 import Scaled8Bit
from swarm.model.stored.layout import DTYPES, Layout
from swarm.model.stored.nf4 import NormalFloat4
from swarm.model.stored.packed import packed
from swarm.model.stored.packed_int import PackedInt

FRAMES = (1, 16)  # tokens: plain decoding, and a window of drafts
SIDE = 4096  # rows and columns of the matrix
CODES = (96, 120)  # random bytes from here: no NaN in any format, and no denormal scale
LAYOUTS: Mapping[str, Layout] = {
    "FP8, blocks of 128 x 128": Scaled8Bit("F8_E4M3", "weight_scale_inv", "F32", (128, 128)),
    "FP8, one scale a row": Scaled8Bit("F8_E4M3", "weight_scale", "F32", (1, None)),
    "INT4, groups of 32": PackedInt(4, 32, "BF16"),
    "INT4, groups of 128, zero points": PackedInt(4, 128, "BF16", zero_points=True),
    "MXFP4": Float4("weight_blocks", "U8", "weight_scales", "U8", 32),
    "NVFP4": Float4("weight_packed", "U8", "weight_scale", "F8_E4M3", 16, DIVIDED),
    "NF4": NormalFloat4(),
}


@dataclass(frozen=True)
class WideningFigures:
    """What was measured of one format.

    Attributes:
        bits: that a weight takes, with its scales.
        times_as_long: as the plain product, by dtype and tokens of a frame.
    """

    name: str
    bits: float
    times_as_long: Mapping[tuple[torch.dtype, int], float]


def measure(side: int, dtypes: Sequence[torch.dtype]) -> list[WideningFigures]:
    """Measure all formats on a square matrix."""
    shape = (side, side)
    times: dict[str, dict[tuple[torch.dtype, int], float]] = {name: {} for name in LAYOUTS}
    for dtype in dtypes:
        weights = [nn.Parameter(torch.randn(shape, dtype=dtype), False)]
        weights += [nn.Parameter(_random(each, side, dtype), False) for each in LAYOUTS.values()]
        for tokens in FRAMES:
            inputs = torch.randn(tokens, side, dtype=dtype)
            plain_s, *packed_s = _least_s(inputs, weights)
            for name, seconds in zip(LAYOUTS, packed_s, strict=True):
                times[name][dtype, tokens] = seconds / plain_s
    return [
        WideningFigures(name, 8 * layout.nbytes(shape) / side**2, times[name])
        for name, layout in LAYOUTS.items()
    ]


def markdown(figures: Sequence[WideningFigures]) -> str:
    """Return the figures as a table."""
    keys = list(figures[0].times_as_long)
    heads = [f"{str(dtype).removeprefix('torch.')}, {tokens}" for dtype, tokens in keys]
    lines = [f"| | bits a weight | {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(keys) + 1)}"]
    for each in figures:
        cells = [f"{each.times_as_long[key]:.1f}" for key in keys]
        lines.append(f"| {each.name} | {each.bits:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _random(layout: Layout, side: int, dtype: torch.dtype) -> torch.Tensor:
    """Return a packed square matrix of random bits."""
    parts = {
        name: torch.randint(*CODES, part.shape).to(DTYPES[part.dtype])
        for name, part in layout.shapes((side, side)).items()
    }
    return packed(layout, parts, (side, side), dtype)


def _least_s(inputs: torch.Tensor, weights: Sequence[torch.Tensor]) -> list[float]:
    with torch.inference_mode():
        return least_in_turn_s(
            [lambda weight=each: functional.linear(inputs, weight) for each in weights]  # type: ignore[misc]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="rows and columns of the matrix")
    arguments = parser.parse_args()
    print(markdown(measure(arguments.side, (torch.float32, torch.bfloat16))))


if __name__ == "__main__":
    main()
