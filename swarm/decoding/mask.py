"""Which tokens a text may go on with: a function of what it holds so far.

A mask is applied to the target's logits and to every draft's, at each position by the tokens before
it. So drafting does not change what a masked text becomes, and no draft guesses what the text may
not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class Mask(Protocol):
    """The tokens that an answer may not go on with. Any thread may call it."""

    def banned(self, answer: Sequence[int]) -> Tensor | None:
        """Return bool ``[vocabulary]``, true for tokens that may not follow the answer so far.

        None if all may, or if the answer itself is none that the mask allows. The tensor is shared:
        never change it.
        """
        ...


@dataclass(frozen=True)
class NotBefore:
    """Bans some tokens, such as those that end a text, from the first tokens of an answer.

    Attributes:
        count: of tokens that the answer has before one of these.
        tokens: ids below ``vocabulary``.
    """

    count: int
    tokens: frozenset[int]
    vocabulary: int

    def banned(self, answer: Sequence[int]) -> Tensor | None:
        return None if len(answer) >= self.count else _only(self.tokens, self.vocabulary)


@lru_cache(maxsize=4)
def _only(tokens: frozenset[int], vocabulary: int) -> Tensor:
    only = torch.zeros(vocabulary, dtype=torch.bool)
    only[sorted(tokens)] = True
    return only


def put_out(row: Tensor, banned: Tensor | None) -> None:
    """Set the logits ``[vocabulary]`` of banned tokens to -inf, in place.

    The row may have fewer entries than the mask, or more; those that the mask does not know are
    banned.
    """
    if banned is not None:
        known = min(len(row), len(banned))
        row[:known].masked_fill_(banned[:known].to(row.device), -torch.inf)
        row[known:] = -torch.inf
