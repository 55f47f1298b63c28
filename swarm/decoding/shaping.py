"""Changes to the logits before a token is chosen: penalties, logit biases and masks.

The logits of target and draft are shaped alike, at every position by the tokens before it, drafted
tokens included: a drafted token is judged only if all before it were accepted. So drafting does not
change the effect of a penalty.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from swarm.decoding.mask import Mask, put_out
from swarm.errors import SamplingError

MAX_BIASES = 1024  # each costs a little at every position
ROUNDING = 1e-6  # relative, of float32
MAX_BIAS = 100.0  # as OpenAI's: in effect it bans a token, or forces it
MAX_PENALTY = 2.0  # nats, likewise


@dataclass(frozen=True)
class Shaping:
    """Penalties, biases and masks. The default changes nothing.

    Attributes:
        repetition_penalty: divides positive and multiplies negative logits of tokens that occurred
            before, the prompt included (Keskar et al. 2019, CTRL, section 4.1; as transformers
            does).
        logit_bias: (token id, nats added) pairs.
        presence_penalty: nats taken from tokens that the answer holds already, as in OpenAI's API.
        frequency_penalty: likewise, for each time that it holds them.
        masks: which tokens the answer may not go on with.
        prompt_tokens: how many tokens of a history stand before the answer; see `of_text`.

    Raises:
        SamplingError: for a value out of range.
    """

    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    masks: tuple[Mask, ...] = ()
    prompt_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            nats = getattr(self, name)
            if not -MAX_PENALTY <= nats <= MAX_PENALTY:
                allowed = f"nats from {-MAX_PENALTY:g} to {MAX_PENALTY:g}; 0 is none"
                raise SamplingError(name, nats, allowed)
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

    def of_text(self, prompt_tokens: int, masks: Sequence[Mask] = ()) -> "Shaping":
        """Return the shaping of one text: what penalties and masks of the answer count from."""
        if not (masks or self._counts):
            return self
        return replace(self, masks=tuple(masks), prompt_tokens=prompt_tokens)

    @property
    def _counts(self) -> bool:
        """Whether it depends on how often the answer holds a token."""
        return bool(self.presence_penalty or self.frequency_penalty)

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
        paths = list(paths)
        if self.repetition_penalty != 1.0:
            occurred = set(history)
            self._penalise(logits, occurred)
            for row, path in zip(logits, paths, strict=True):
                self._penalise(row[None], set(path) - occurred)
        answer = tuple(history[self.prompt_tokens :])
        if self._counts:
            counts = Counter(answer)
            for row, path in zip(logits, paths, strict=True):
                self._charge(row, counts + Counter(path))
        for token, bias in self.logit_bias:
            if token < logits.shape[-1]:
                logits[:, token] += bias
        for mask in self.masks:
            for row, path in zip(logits, paths, strict=True):
                put_out(row, mask.banned((*answer, *path)))
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

    def _charge(self, row: Tensor, counts: Mapping[int, int]) -> None:
        """Take the penalties of an answer's tokens from their logits ``[vocabulary]``, in place."""
        known = {token: count for token, count in counts.items() if token < len(row)}
        if known:
            tokens = torch.tensor(list(known), device=row.device)
            counted = torch.tensor(list(known.values()), dtype=row.dtype, device=row.device)
            row[tokens] -= counted * self.frequency_penalty + self.presence_penalty

    # What shaping does at most to tokens of which only a bound is known.

    def changes_nothing(self, known: Tensor) -> bool:
        """Return whether it leaves all tokens but the ``known`` ones, ``[k]`` ids, as they are."""
        untouched = self.repetition_penalty == 1.0 and not self._counts and not self.masks
        return untouched and not self._biases_besides(known)

    def may_raise(self, known: Tensor) -> bool:
        """Return whether it may raise the logit of another token than the ``known`` ones."""
        raised = any(bias > 0 for bias in self._biases_besides(known))
        rewarded = self.presence_penalty < 0 or self.frequency_penalty < 0
        return self.repetition_penalty < 1.0 or raised or rewarded

    def ceiling(self, logit: float, known: Tensor, length: int) -> float:
        """Return the most that a logit of at most ``logit`` can become, for any token but the
        ``known`` ones, behind a history of ``length`` tokens."""
        if not self.may_raise(known):
            return logit
        raised = [bias for bias in self._biases_besides(known) if bias > 0]
        penalty = self.repetition_penalty
        penalised = logit / penalty if logit > 0 else logit * penalty
        answer = max(0, length - self.prompt_tokens)
        reward = max(0.0, -self.presence_penalty) + answer * max(0.0, -self.frequency_penalty)
        most = max(logit, penalised) + max(raised, default=0.0) + reward
        return most + ROUNDING * (1.0 + abs(most))

    def most_changed(self, history: Sequence[int], vocabulary: int) -> int:
        """Return how many tokens it changes at most."""
        if self.masks:
            return vocabulary
        return min(vocabulary, len(set(history)) + len(self.logit_bias))

    def _biases_besides(self, known: Tensor) -> list[float]:
        if not self.logit_bias:
            return []
        listed = set(known.tolist())
        return [bias for token, bias in self.logit_bias if token not in listed and bias]


NO_SHAPING = Shaping()
