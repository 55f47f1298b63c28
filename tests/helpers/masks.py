"""A mask by arithmetic, for tests of what is decided under masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EveryThird:
    """Bans every third token; which ones depends on the sum of the answer so far."""

    vocabulary: int

    def banned(self, answer: Sequence[int]) -> Tensor | None:
        return (torch.arange(self.vocabulary) + sum(answer)) % 3 == 0
