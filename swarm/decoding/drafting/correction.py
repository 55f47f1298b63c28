"""Learning while it writes: a draft's systematic errors are corrected by what the target chose.

At every decided place the client knows, for free, what the draft expected and what the target
chose. From that it learns a bias for each token, and one for each token behind each other token, by
gradient steps on the draft's cross-entropy. A step shrinks with what its bias has seen (AdaGrad,
Duchi et al. 2011). It is the bias of pairs of tokens of DSpark's head, with an entry for each pair
that was seen in place of a product of low rank: to learn one costs some microseconds, to apply
it an addition of vectors. docs/drafting.md has what it gains.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.shaping import NO_SHAPING, Shaping

TOKEN_STEP = 0.2  # nats, of a token's first one
PAIR_STEP = 0.5  # likewise of a pair
MOST = 4.0  # nats: what a bias may become
MAX_PREVIOUS = 8192  # tokens behind which others have biases: with these, at most 4 MB
MAX_BEHIND = 32  # tokens that have biases behind one token


class TokenBias(NamedTuple):
    """A token's bias in nats, and the sum of its squared gradients, and 1."""

    token: int
    nats: float
    squares: float


@dataclass(frozen=True)
class _Biases:
    """The biases of the tokens behind one token. Replaced, and never changed."""

    tokens: NDArray[np.int64]
    nats: NDArray[np.float32]
    squares: NDArray[np.float32]  # for each token, the sum of its squared gradients, and 1


NO_BIASES = _Biases(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))


class Correction:
    """Biases of a draft's logits, shared by all texts of an owner.

    One thread may learn while another one drafts: a bias that is read early changes a guess, and no
    text.

    Args:
        size: of the target's vocabulary.
    """

    def __init__(self, size: int) -> None:
        self._nats = np.zeros(size, np.float32)
        self._squares = np.ones(size, np.float32)
        self._behind: dict[int, _Biases] = {}  # by the token before; those last learned come last

    def begin_with(self, biases: Iterable[TokenBias]) -> None:
        """Take what was learned before, as far as the vocabulary has these tokens."""
        for bias in biases:
            if bias.token < len(self._nats):
                self._nats[bias.token] = min(max(bias.nats, -MOST), MOST)
                self._squares[bias.token] = max(bias.squares, 1.0)

    def most_moved(self, count: int) -> tuple[TokenBias, ...]:
        """Return the biases of single tokens that differ most from 0, at most ``count``."""
        order = np.argsort(-np.abs(self._nats), kind="stable")[:count].tolist()
        return tuple(
            TokenBias(token, float(self._nats[token]), float(self._squares[token]))
            for token in order
            if self._nats[token]
        )

    def learn(self, previous: int, drafted: Drafted, chosen: int) -> None:
        """Learn from a decided place.

        Args:
            previous: the token before it.
            drafted: the draft's choices there; without a confidence they teach nothing.
            chosen: the token that became part of the text.
        """
        if drafted.confidence is None:
            return
        expected = {chosen: 0.0, drafted.token: drafted.confidence, **dict(drafted.others)}
        tokens = np.fromiter(expected, np.int64)
        gradients = (tokens == chosen) - np.fromiter(expected.values(), np.float32)
        self._squares[tokens] += gradients**2
        self._nats[tokens] = _stepped(
            self._nats[tokens], TOKEN_STEP, gradients, self._squares[tokens]
        )
        self._behind[previous] = _learned(self._behind.pop(previous, NO_BIASES), tokens, gradients)
        if len(self._behind) > MAX_PREVIOUS:
            del self._behind[next(iter(self._behind))]

    def apply(self, logits: Tensor, previous: Iterable[int]) -> Tensor:
        """Return the corrected logits, a new tensor.

        Args:
            logits: ``[n, vocabulary]``, the draft's own.
            previous: for each row the token before the predicted one.
        """
        corrected = logits + torch.from_numpy(self._nats).to(logits.device)
        for row, token in zip(corrected, previous, strict=True):
            biases = self._behind.get(token)
            if biases is not None:
                row[torch.from_numpy(biases.tokens)] += torch.from_numpy(biases.nats).to(row)
        return corrected


def _stepped(
    nats: NDArray[np.float32],
    step: float,
    gradients: NDArray[np.float32],
    squares: NDArray[np.float32],
) -> NDArray[np.float32]:
    return np.clip(nats + step * gradients / np.sqrt(squares), -MOST, MOST).astype(np.float32)


def _learned(known: _Biases, tokens: NDArray[np.int64], gradients: NDArray[np.float32]) -> _Biases:
    """Return the biases behind a token after one more place; those moved last come last."""
    same = known.tokens[:, None] == tokens  # [known, moved]
    moved = same.any(axis=0)
    squares = np.where(moved, known.squares @ same, 1.0) + gradients**2
    nats = _stepped(known.nats @ same, PAIR_STEP, gradients, squares)
    others = ~same.any(axis=1)
    return _Biases(
        np.concatenate([known.tokens[others], tokens])[-MAX_BEHIND:],
        np.concatenate([known.nats[others], nats])[-MAX_BEHIND:],
        np.concatenate([known.squares[others], squares.astype(np.float32)])[-MAX_BEHIND:],
    )


@dataclass(frozen=True)
class CorrectedShaping(Shaping):
    """The shaping of a draft's logits whose errors are corrected first.

    Attributes:
        asked: the shaping that the request asks for.
    """

    asked: Shaping = NO_SHAPING
    correction: Correction | None = None

    def apply_each(
        self, logits: Tensor, history: Sequence[int], paths: Iterable[Sequence[int]]
    ) -> Tensor:
        """See `Shaping.apply_each`."""
        paths = list(paths)
        if self.correction is not None:
            previous = (path[-1] if path else history[-1] for path in paths)
            logits = self.correction.apply(logits, previous)
        return self.asked.apply_each(logits, history, paths)
