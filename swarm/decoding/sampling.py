"""Choosing a token from logits, so that the choice depends on the logits and the seed alone.

Temperature sampling by the Gumbel-max trick: the token with the largest ``logit / T + noise`` is a
draw from the softmax. Our noise is a function of (seed, position, token) (Daliri, Musco and Suresh,
"Coupling without Communication and Drafter-Invariant Speculative Decoding", 2024). So plain and
speculative decoding with one seed choose the same tokens, strict verification is equality, and a
draft model that uses the same noise agrees with the target more often.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from swarm.errors import SamplingError

MAX_SEED = (1 << 63) - 1
LEAST_UNIFORM = 2.0**-25  # half the smallest step of a float32 random number
LEAST_TEMPERATURE = 1e-30  # below, float32 has no number for it
LEAST_TOP_P = 1e-9  # less than the share of the likeliest token, in any vocabulary
# Positions. The noise by which the draft chose a token is used again when the target judges it.
NOISE_KEPT = 64
TOP_BLOCK = 512  # scores


class NoisePurpose(IntEnum):
    """What a random number decides. The noise of each purpose is independent of the others."""

    CHOICE = 0  # which token, for the target and the draft alike
    ACCEPT = 1  # whether a randomized rule accepts a drafted token
    REDRAW = 2  # which token takes the place of a rejected one


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    ``temperature = 0`` is greedy; ``top_k = 0``, ``top_p = 1`` and ``min_p = 0`` keep every token,
    ``top_p = 0`` the likeliest alone. ``min_p`` keeps the tokens with at least this share of the
    likeliest one's probability (Nguyen et al. 2024, "Min-p Sampling", arXiv 2407.01082).

    Raises:
        SamplingError: for a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise SamplingError("temperature", self.temperature, "a number from 0 (greedy) to 100")
        if self.top_k < 0:
            allowed = "0 (all tokens) or a positive number of tokens"
            raise SamplingError("top_k", self.top_k, allowed)
        if not 0.0 <= self.top_p <= 1.0:
            allowed = "a number from 0 (the likeliest token) up to 1 (all tokens)"
            raise SamplingError("top_p", self.top_p, allowed)
        if not 0.0 <= self.min_p <= 1.0:
            allowed = "a share of the likeliest token's probability, from 0 (all tokens) to 1"
            raise SamplingError("min_p", self.min_p, allowed)
        if not 0 <= self.seed <= MAX_SEED:
            raise SamplingError("seed", self.seed, f"an integer from 0 to {MAX_SEED}")

    def choose(self, logits: Tensor, position: int) -> list[int]:
        """Return the tokens that belong at ``position``, ``position + 1``, ...

        Args:
            logits: ``[n, vocabulary]`` of any float dtype, on any device; row ``i`` is the
                prediction for position ``position + i`` of the sequence.
        """
        if self.temperature == 0.0:
            return [best_of(row) for row in logits.float().cpu()]
        return [self.draw(row, position + i) for i, row in enumerate(self._scaled(logits))]

    def rank(
        self, logits: Tensor, positions: Sequence[int], count: int
    ) -> list[list[tuple[int, float]]]:
        """Return the best tokens at each of ``positions`` with the confidence in each.

        The first is the token of `choose`. A confidence is the token's share of the softmax of the
        scores that decide, noise included. The target uses the same noise, so it rarely overturns
        a clear lead of the draft.

        Args:
            logits: ``[len(positions), vocabulary]``, the predictions for these positions.
            count: the most tokens at a position.
        """
        scores = logits.float().cpu()
        if self.temperature:
            noise = [gumbel_noise(self.seed, position, scores.shape[-1]) for position in positions]
            scores = self._scaled(scores) + torch.stack(noise)
        tokens = top_tokens(scores, min(count, scores.shape[-1]))
        shares = scores.softmax(dim=-1).gather(-1, tokens)
        best = scores.numpy().argmax(axis=-1).tolist()
        rows = zip(best, tokens.tolist(), shares.tolist(), strict=True)
        return [_best_first(*row)[:count] for row in rows]

    def scores(self, logits: Tensor, position: int) -> Tensor:
        """Return the scores ``[vocabulary]`` float32; the best token belongs at ``position``.

        Args:
            logits: ``[vocabulary]``; the temperature is not 0.
        """
        noise = gumbel_noise(self.seed, position, logits.shape[-1])
        return self._scaled(logits[None])[0] + noise

    def draw(
        self, scores: Tensor, position: int, purpose: NoisePurpose = NoisePurpose.CHOICE
    ) -> int:
        """Draw a token ``t`` with probability proportional to ``exp(scores[t])``.

        ``scores`` is ``[vocabulary]`` float32.
        """
        return best_of(scores + gumbel_noise(self.seed, position, len(scores), purpose))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the distribution that `choose` draws from, ``[vocabulary]`` float32.

        It is all on the best token if sampling is greedy.
        """
        if self.temperature == 0.0:
            return torch.nn.functional.one_hot(logits.argmax().cpu(), logits.shape[-1]).float()
        return self.log_probabilities(logits).exp()

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the distribution that `choose` draws from.

        ``[vocabulary]`` float32; -inf for tokens outside top k, top p and min p. If sampling is
        greedy, the logarithm of the softmax at temperature 1 over all tokens.
        """
        if self.temperature == 0.0:
            return logits.float().cpu().log_softmax(dim=-1)
        return self._scaled(logits[None])[0].log_softmax(dim=-1)

    def scale(self, logits: Tensor) -> Tensor:
        """Return the logits relative to each row's best, over the temperature; a new tensor.

        At one best logit never decreasing in any other, rounding included. The temperature is not
        0.

        Args:
            logits: ``[n, vocabulary]``.
        """
        logits = logits.float().cpu()
        # Relative to the best: a temperature near 0 then makes the others small, and never makes
        # the best infinite.
        relative = logits - logits.amax(dim=-1, keepdim=True)
        return relative.div_(max(self.temperature, LEAST_TEMPERATURE))

    def floor(self, logits: Tensor) -> Tensor:
        """Set the logits of tokens below min p to -inf, in place; return them.

        Never decreasing in any logit.

        Args:
            logits: ``[..., vocabulary]``, of `scale`.
        """
        return logits.masked_fill_(logits < self.least, -torch.inf) if self.min_p else logits

    @property
    def least(self) -> float:
        """The least of the logits of `scale` that min p keeps."""
        return math.log(self.min_p) if self.min_p else -math.inf

    def restricted(self, logits: Tensor) -> Tensor:
        """Return the logits of `scale` with -inf for tokens outside top k, top p and min p."""
        return self.floor(restrict(logits, self.top_k, self.top_p))

    def _scaled(self, logits: Tensor) -> Tensor:
        return self.restricted(self.scale(logits))


def log_probabilities(
    logits: Tensor, token: int, count: int
) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of ``token``, and the ``count`` likeliest tokens with theirs.

    In nats, at temperature 1; the likeliest token comes first.

    Args:
        logits: ``[vocabulary]``, shaped by penalties and biases.
    """
    log_p = logits.float().log_softmax(-1)
    values, tokens = log_p.topk(min(count, log_p.shape[-1]))
    return float(log_p[token]), list(zip(tokens.tolist(), values.tolist(), strict=True))


def _best_first(
    best: int, tokens: Sequence[int], shares: Sequence[float]
) -> list[tuple[int, float]]:
    """Return the possible tokens with their shares, ``best`` before all others.

    `topk` may put another token with the same share first.
    """
    others = [each for each in zip(tokens, shares, strict=True) if each[0] != best and each[1]]
    return [(best, shares[0]), *others]


def restrict(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set the logits of all tokens outside top k, and then of those outside top p, to -inf.

    Top p is the smallest set of tokens with mass ``top_p``; 0 keeps the likeliest token. Ties at
    the edge of the top k stay in; of ties at the edge of the top p, the lowest ids stay.

    Args:
        logits: ``[n, vocabulary]``.
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        mass_before = probabilities.cumsum(dim=-1) - probabilities
        beyond = mass_before >= max(top_p, LEAST_TOP_P)
        outside = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, beyond)
        logits = logits.masked_fill(outside, -torch.inf)
    return logits


@lru_cache(maxsize=NOISE_KEPT)
def gumbel_noise(
    seed: int, position: int, vocabulary: int, purpose: NoisePurpose = NoisePurpose.CHOICE
) -> Tensor:
    """Return standard Gumbel noise ``[vocabulary]`` in float32.

    Entry ``t`` depends on (seed, position, purpose, t) alone. The tensor is shared: never change it
    in place.
    """
    numbers = _philox(seed, position, purpose).random(vocabulary, dtype=np.float32)
    uniforms = torch.from_numpy(numbers).clamp_(min=LEAST_UNIFORM)  # the logarithm of 0 is infinite
    return uniforms.log_().neg_().log_().neg_()


def uniform(seed: int, position: int, purpose: NoisePurpose) -> float:
    """Return a number from [0, 1) that depends on (seed, position, purpose) alone."""
    return float(_philox(seed, position, purpose).random())


def top_tokens(scores: Tensor, count: int) -> Tensor:
    """Return the tokens with the best scores, ``[n, count]``, the best one first.

    Args:
        scores: ``[n, vocabulary]``; ``count`` is at most the vocabulary.
    """
    blocks = scores.shape[-1] // TOP_BLOCK
    if blocks <= count:
        return scores.topk(count).indices
    # The best tokens lie in the blocks with the best maxima. Over 150,000 scores that takes a tenth
    # of the time of `topk`.
    whole = blocks * TOP_BLOCK
    maxima = scores[:, :whole].view(-1, blocks, TOP_BLOCK).amax(dim=-1)
    starts = maxima.topk(count).indices * TOP_BLOCK
    inside = (starts[..., None] + torch.arange(TOP_BLOCK)).flatten(1)
    behind = torch.arange(whole, scores.shape[-1]).expand(len(scores), -1)
    tokens = torch.cat([inside, behind], dim=-1)
    return tokens.gather(-1, scores.gather(-1, tokens).topk(count).indices)


def best_of(scores: Tensor) -> int:
    """Return the index of the largest score, the first of equals."""
    return int(scores.numpy().argmax())  # over 150,000 scores ten times as fast as torch's


def _philox(seed: int, position: int, purpose: NoisePurpose) -> np.random.Generator:
    """Return a counter-based generator with a documented stream: the same on every machine."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, purpose]))
