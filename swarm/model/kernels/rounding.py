"""Rounding to int8: the rows of a weight, and the inputs that they are multiplied with.

An input is rounded to two int8 terms, a coarse and a fine one, together 14 bits. So one integer
product of twice the rows has nearly the precision of float32 inputs. Twice the rows cost little,
because reading the weights takes most of the time.
"""

import torch
from torch import Tensor

STEPS = 127  # of a weight's scale, on either side of 0
MOST = 63  # of a coarse term: with 8 bits, older CPUs' instructions would saturate
STEP = 128.0  # a fine term counts in steps of the coarse one's by this
TERMS = 2
MOST_FACTOR = 64  # the largest absolute value of a term, the fine one included
LEAST_SCALE = 1e-30  # of a row of zeros, by which it may be divided
BLOCK_WEIGHTS = 1 << 18  # rounded at a time: they stay in the processor's cache


def rounded_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight ``[outputs, inputs]`` to int8, with a float32 scale ``[outputs]``.

    ``weight`` is about ``int8 * scale[:, None]``.
    """
    rounded = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
    rows = max(1, BLOCK_WEIGHTS // weight.shape[1])
    for start in range(0, len(weight), rows):
        block = slice(start, start + rows)
        exact = weight[block].float()
        scale[block] = exact.abs().amax(1).div_(STEPS).clamp_(min=LEAST_SCALE)
        rounded[block] = torch.div(exact, scale[block, None]).round_()
    return rounded, scale


def rounded_inputs(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Round inputs ``[n, columns]`` float32 to int8 terms ``[2n, columns]`` and scales ``[n, 1]``.

    Row ``i`` of the inputs is about ``(terms[i] + terms[n + i] / STEP) * scales[i]``.
    """
    scales = inputs.abs().amax(1, keepdim=True).div_(MOST).clamp_(min=LEAST_SCALE)
    exact = inputs / scales
    coarse = exact.round()
    fine = exact.sub_(coarse).mul_(STEP).round_()
    return torch.cat((coarse, fine)).to(torch.int8), scales
