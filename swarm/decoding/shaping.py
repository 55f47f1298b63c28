"""Changes to the logits before a token is chosen: the repetition penalty and logit biases.

The logits of target and draft are shaped alike, at every position by the tokens before it, drafted
tokens included: a drafted token is judged only if all before it were accepted. So drafting does not
change the effect of a penalty.
"""

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.errors import SamplingError

MAX_BIASES = 1024  # each costs a little at every position
ROUNDING = 1e-6  # relative, of float32
MAX_BIAS = 100.0  # as OpenAI's: in effect it bans a token, or forces it


@dataclass(frozen=True)
class Shaping:
    """Penalties and biases. The default changes nothing.

    Attributes:
        repetition_penalty: divides positive and multiplies negative logits of tokens that occurred
            before, the prompt included (Keskar et al. 2019, CTRL, section 4.1; as transformers
            does).
        logit_bias: (token id, nats added) pairs.

    Raises:
        SamplingError: for a value out of range.
    """

    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        penalty = self.repetition_penalty
        if not (math.isfinite(penalty) and 0.01 <= penalty <= 100.0):
            allowed = "a number from 0.01 to 100; 1 is none"
            raise SamplingError("repetition_penalty", penalty, allowed)
        entries = len(self.logit_bias)
        if entries > MAX_BIASES:
            raise SamplingError("logit_bias", f"{entries} entries", f"at most {MAX_BIASES}")
        for token, bias in self.logit_bias:
            if token < 0 or not -MAX_BIAS <= bias <= MAX_BIAS:
                allowed = f"token ids with biases of at most {MAX_BIAS:g} nats"
                raise SamplingError("logit_bias", (token, bias), allowed)

    def apply(self, logits: Tensor, history: Sequence[int], path: Sequence[int] = ()) -> Tensor:
        """Return the shaped rows: the same tensor if there is nothing to change, else a new one.

        Args:
            logits: ``[n, vocabulary]``; row ``i`` predicts the token behind ``history`` and
                ``path[:i]``.
        """
        return self.apply_each(logits, history, (path[:i] for i in range(len(logits))))

    def apply_each(
        self, logits: Tensor, history: Sequence[int], paths: Iterable[Sequence[int]]
    ) -> Tensor:
        """Return the shaped rows, as `apply` does, of places on different paths.

        Never decreasing in any logit, rounding included: bounds of logits become bounds of shaped
        ones.

        Args:
            logits: ``[n, vocabulary]``; row ``i`` predicts the token behind ``history`` and all of
                ``paths[i]``.
        """
        if self == NO_SHAPING:
            return logits
        logits = logits.float().clone()
        if self.repetition_penalty != 1.0:
            occurred = set(history)
            self._penalise(logits, occurred)
            for row, path in zip(logits, paths, strict=True):
                self._penalise(row[None], set(path) - occurred)
        for token, bias in self.logit_bias:
            if token < logits.shape[-1]:
                logits[:, token] += bias
        return logits

    def apply_known(
        self, rows: Sequence[Tensor | None], history: Sequence[int], path: Sequence[int]
    ) -> list[Tensor | None]:
        """Return ``[vocabulary]`` rows, shaped as by `apply`; None for those that are None."""
        if self == NO_SHAPING:
            return list(rows)
        known = [i for i, row in enumerate(rows) if row is not None]
        shaped: list[Tensor | None] = [None] * len(rows)
        if known:
            stacked = torch.stack([row for row in rows if row is not None])
            every = self.apply_each(stacked, history, [path[:i] for i in known])
            for i, row in zip(known, every, strict=True):
                shaped[i] = row
        return shaped

    def _penalise(self, logits: Tensor, tokens: Set[int]) -> None:
        """Change the logits of ``tokens`` in every row, in place."""
        known = torch.tensor([token for token in tokens if token < logits.shape[-1]])
        if not len(known):
            return
        known = known.to(logits.device)
        values = logits[:, known]
        penalty = self.repetition_penalty
        logits[:, known] = torch.where(values > 0, values / penalty, values * penalty)

    # What shaping does at most to tokens of which only a bound is known.

    def changes_nothing(self, known: Tensor) -> bool:
        """Return whether it leaves all tokens but the ``known`` ones, ``[k]`` ids, as they are."""
        return self.repetition_penalty == 1.0 and not self._biases_besides(known)

    def may_raise(self, known: Tensor) -> bool:
        """Return whether it may raise the logit of another token than the ``known`` ones."""
        raised = any(bias > 0 for bias in self._biases_besides(known))
        return self.repetition_penalty < 1.0 or raised

    def ceiling(self, logit: float, known: Tensor) -> float:
        """Return the most that a logit of at most ``logit`` can become, for any token but the
        ``known`` ones."""
        raised = [bias for bias in self._biases_besides(known) if bias > 0]
        if self.repetition_penalty >= 1.0 and not raised:
            return logit
        penalty = self.repetition_penalty
        penalised = logit / penalty if logit > 0 else logit * penalty
        most = max(logit, penalised) + max(raised, default=0.0)
        return most + ROUNDING * (1.0 + abs(most))

    def _biases_besides(self, known: Tensor) -> list[float]:
        if not self.logit_bias:
            return []
        listed = set(known.tolist())
        return [bias for token, bias in self.logit_bias if token not in listed and bias]


NO_SHAPING = Shaping()
