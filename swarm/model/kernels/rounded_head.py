"""An int8 copy of an LM head, and how far each of its logits may be from the exact one.

A logit is the product of a row of weights ``w`` and the head's input ``x``. With ``q`` for the
rounded row and ``y`` for the rounded input::

    w·x = q·y + (w - q)·x + q·(x - y),   so   |w·x - q·y| <= |w - q| |x| + |q| |x - y|

by Cauchy and Schwarz. The norms of weights are computed once. An input keeps 14 bits
(`swarm.model.kernels.rounding`), so that nearly all of the error is that of the weights. A product
of int8 is exact, and reads a quarter of the bytes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from swarm.model.kernels.int8 import Int8Product, Pack
from swarm.model.kernels.rounding import STEP, rounded_inputs, rounded_weight

# Roundings of float32, of 2^-24 each, between the exact product and a bound or a logit. There are
# about 10; 32 leave room.
ROUNDINGS = 32 * 2.0**-24
NORM_SLACK = 1.0 + 1e-4  # norms are sums in float32
UNDERFLOW = 1e-16  # more than a norm loses where squares are too small for float32
LEAST_ERROR = 1e-30  # more than a logit loses where it is
BLOCK = 1 << 14  # rows of weights that are packed together
QUANTIZED_AT_ONCE = 512  # rows: they stay in a CPU's cache
REFINED_AT_ONCE = 1024


class RoundedHead:
    """Bounds of all logits, and the exact logits of some.

    Attributes:
        memory_bytes: of the copy.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, pack: Pack) -> None:
        """Round ``weight [vocabulary, hidden]``, float32 on the CPU, which is kept, too."""
        vocabulary, hidden = weight.shape
        self._weight = weight
        self._bias = bias
        self._scales = torch.empty(vocabulary)
        # By what an input's norm, the norm of its rounding, and 1 are multiplied.
        self._error = torch.empty(3, vocabulary)
        self._error[2] = LEAST_ERROR if bias is None else LEAST_ERROR + ROUNDINGS * bias.abs()
        self._blocks: Sequence[Int8Product] = [
            pack(self._round(start, min(start + BLOCK, vocabulary)))
            for start in range(0, vocabulary, BLOCK)
        ]
        self.memory_bytes = vocabulary * (hidden + 16)

    def _round(self, first: int, last: int) -> Tensor:
        """Return rows of the weights in int8, and note how far they are off."""
        rounded = torch.empty(last - first, self._weight.shape[1], dtype=torch.int8)
        for start in range(first, last, QUANTIZED_AT_ONCE):
            end = min(start + QUANTIZED_AT_ONCE, last)
            rows = self._weight[start:end]
            units, scales = rounded_weight(rows)
            rounded[start - first : end - first] = units
            self._scales[start:end] = scales
            stand_for = units.float().mul_(scales[:, None])
            kept = stand_for.norm(dim=1) * NORM_SLACK + UNDERFLOW
            lost = stand_for.sub_(rows).norm(dim=1) * NORM_SLACK + UNDERFLOW
            self._error[0, start:end] = lost + ROUNDINGS * (kept + lost)
            self._error[1, start:end] = kept
        return rounded

    def bounds(self, entered: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds ``[n, vocabulary]`` of what `exact` returns.

        Args:
            entered: ``[n, hidden]`` float32, the input of the LM head.
        """
        terms, scales = rounded_inputs(entered)
        coarse, fine = terms.double().chunk(2)
        rounding = entered.double() - scales.double() * (coarse + fine / STEP)
        norms = [entered.double().norm(dim=1) * NORM_SLACK, rounding.norm(dim=1) * NORM_SLACK]
        sizes = torch.stack([*norms, torch.ones_like(norms[0])], dim=1).float()
        lower = torch.empty(len(entered), len(self._scales))
        upper = torch.empty_like(lower)
        # Block by block, so that what is done to the products finds them in the CPU's caches.
        for start, block in zip(range(0, len(self._scales), BLOCK), self._blocks, strict=True):
            columns = slice(start, start + BLOCK)
            product = block(terms)
            logits = product[: len(entered)].add_(product[len(entered) :], alpha=1 / STEP)
            logits.mul_(self._scales[columns]).mul_(scales)
            if self._bias is not None:
                logits.add_(self._bias[columns])
            error = sizes @ self._error[:, columns]
            torch.sub(logits, error, out=lower[:, columns])
            torch.add(logits, error, out=upper[:, columns])
        return lower, upper

    def exact(self, entered: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits ``[m]`` of some tokens at some rows, which are in order.

        They are summed in float64 and rounded once: so they do not depend on how many there are.
        """
        parts = [torch.empty(0)]
        for row, count in zip(*torch.unique_consecutive(rows, return_counts=True), strict=True):
            start = sum(map(len, parts))
            own = tokens[start : start + int(count)]
            values = entered[row].double()
            sums = torch.cat(
                [self._weight[some].double() @ values for some in torch.split(own, REFINED_AT_ONCE)]
            )
            if self._bias is not None:
                sums += self._bias[own].double()
            parts.append(sums.float())
        return torch.cat(parts)
