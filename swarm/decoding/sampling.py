"""Choosing a token from logits, so that the choice depends on the logits and the seed alone.

Temperature sampling by the Gumbel-max trick: the token with the largest ``logit / T + noise`` is a
draw from the softmax. Our noise is a function of (seed, position, token) (Daliri, Musco and Suresh,
"Coupling without Communication and Drafter-Invariant Speculative Decoding", 2024). So plain and
speculative decoding with one seed choose the same tokens, strict verification is equality, and a
drafter that uses the same noise agrees with the target more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from swarm.errors import ExitCode, SwarmError

MAX_SEED = (1 << 63) - 1
LEAST_UNIFORM = 2.0**-25  # half the smallest step of a float32 random number
LEAST_TEMPERATURE = 1e-30  # below, float32 has no number for it
LEAST_TOP_P = 1e-9  # less than the share of the likeliest token, in any vocabulary
# positions: the noise by which the draft chose a token serves again when the target judges it
NOISE_KEPT = 64


class Stream(IntEnum):
    """Independent noise for each purpose, so that one decision tells nothing about another."""

    CHOICE = 0  # of a token, by the target and by the draft alike
    ACCEPT = 1  # of a drafted token, by a rule that throws dice
    REDRAW = 2  # of a token in the place of a refused one


class SamplingError(SwarmError):
    """A sampling parameter is out of its range."""

    exit_code = ExitCode.USAGE

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        return f"{self.name} = {self.value!r} is not possible; give {self.allowed}"


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    ``temperature = 0`` is greedy; ``top_k = 0`` and ``top_p = 1`` keep every token, ``top_p = 0``
    the likeliest alone.

    Raises:
        SamplingError: for a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise SamplingError("temperature", self.temperature, "a number from 0 (greedy) to 100")
        if self.top_k < 0:
            raise SamplingError(
                "top_k", self.top_k, "0 (all tokens) or a positive number of tokens"
            )
        if not 0.0 <= self.top_p <= 1.0:
            raise SamplingError(
                "top_p", self.top_p, "a number from 0 (the likeliest token) up to 1 (all tokens)"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise SamplingError("seed", self.seed, f"an integer from 0 to {MAX_SEED}")

    def choose(self, logits: Tensor, position: int) -> list[int]:
        """The tokens that belong at ``position``, ``position + 1``, ...

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
        """For each of ``positions``, the token of `choose` and the next best ones, ``count`` at
        most, and how sure each is: its share of the softmax of the scores that decided, noise
        included. The noise being the target's too, a clear lead of the draft is one that the target
        rarely turns around.

        Args:
            logits: ``[len(positions), vocabulary]``, the predictions for these positions.
        """
        scores = logits.float().cpu()
        if self.temperature:
            noise = [gumbel_noise(self.seed, position, scores.shape[-1]) for position in positions]
            scores = self._scaled(scores) + torch.stack(noise)
        sure, tokens = scores.softmax(dim=-1).topk(min(count, scores.shape[-1]))
        best = scores.numpy().argmax(axis=-1).tolist()
        return [
            _best_first(*row)[:count]
            for row in zip(best, tokens.tolist(), sure.tolist(), strict=True)
        ]

    def draw(self, scores: Tensor, position: int, stream: Stream = Stream.CHOICE) -> int:
        """A token ``t`` with probability proportional to ``exp(scores[t])``; ``scores`` is
        ``[vocabulary]`` float32."""
        return best_of(scores + gumbel_noise(self.seed, position, len(scores), stream))

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution that `choose` draws from, ``[vocabulary]`` float32: all on the best
        token if greedy."""
        if self.temperature == 0.0:
            return torch.nn.functional.one_hot(logits.argmax().cpu(), logits.shape[-1]).float()
        return self.log_probabilities(logits).exp()

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Logarithm of the distribution that `choose` draws from, ``[vocabulary]`` float32; -inf
        for tokens outside top k and top p. Where sampling is greedy, of the softmax at temperature
        1 over all tokens."""
        if self.temperature == 0.0:
            return logits.float().cpu().log_softmax(dim=-1)
        return self._scaled(logits[None])[0].log_softmax(dim=-1)

    def _scaled(self, logits: Tensor) -> Tensor:
        logits = logits.float().cpu()
        # Measured from the best, so that a temperature near 0 makes the others small and never the
        # best infinite.
        scaled = (logits - logits.amax(dim=-1, keepdim=True)) / max(
            self.temperature, LEAST_TEMPERATURE
        )
        return restrict(scaled, self.top_k, self.top_p)


def _best_first(best: int, tokens: Sequence[int], sure: Sequence[float]) -> list[tuple[int, float]]:
    """The likeliest tokens that are possible, with ``best``, of equals the first, before all
    others."""
    others = [each for each in zip(tokens, sure, strict=True) if each[0] != best and each[1]]
    return [(best, sure[0]), *others]


def restrict(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set all but the ``top_k`` likeliest tokens, and then all outside the smallest set of mass
    ``top_p``, to -inf.

    A ``top_p`` of 0 keeps the likeliest token.

    ``logits`` is ``[n, vocabulary]``; ties at the edge of the top k stay in, of those at the edge
    of the top p the lowest ids do.
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        mass_before = probabilities.cumsum(dim=-1) - probabilities
        outside = torch.zeros_like(logits, dtype=torch.bool).scatter(
            -1, order, mass_before >= max(top_p, LEAST_TOP_P)
        )
        logits = logits.masked_fill(outside, -torch.inf)
    return logits


@lru_cache(maxsize=NOISE_KEPT)
def gumbel_noise(
    seed: int, position: int, vocabulary: int, stream: Stream = Stream.CHOICE
) -> Tensor:
    """Standard Gumbel noise ``[vocabulary]`` in float32; entry ``t`` depends on (seed, position,
    stream, t) alone.

    Shared: not to be changed in place.
    """
    uniforms = torch.from_numpy(
        _philox(seed, position, stream).random(vocabulary, dtype=np.float32)
    )
    # the logarithm of 0 would be infinite
    return uniforms.clamp_(min=LEAST_UNIFORM).log_().neg_().log_().neg_()


def uniform(seed: int, position: int, stream: Stream) -> float:
    """A number from [0, 1) that depends on (seed, position, stream) alone."""
    return float(_philox(seed, position, stream).random())


def best_of(scores: Tensor) -> int:
    """Index of the largest score, the first of equals."""
    return int(scores.numpy().argmax())  # over 150,000 scores ten times as fast as torch's


def _philox(seed: int, position: int, stream: Stream) -> np.random.Generator:
    """Philox is a counter-based generator with a documented stream: the same on every machine."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, stream]))
