"""What changes the logits before a token is chosen: the repetition penalty and logit biases.

Target and draft are shaped alike, at every position by the tokens before it, drafted ones included:
a drafted token is judged only if all before it were kept. So drafting does not change what a
penalty does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.decoding.sampling import SamplingError

MAX_BIASES = 1024  # each costs a little at every position
MAX_BIAS = 100.0  # as OpenAI's: as good as a ban, or as a command


@dataclass(frozen=True)
class Shaping:
    """The default changes nothing.

    Args:
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
        if not (
            math.isfinite(self.repetition_penalty) and 0.01 <= self.repetition_penalty <= 100.0
        ):
            raise SamplingError(
                "repetition_penalty",
                self.repetition_penalty,
                "a number from 0.01 to 100; 1 is none",
            )
        if len(self.logit_bias) > MAX_BIASES:
            raise SamplingError(
                "logit_bias", f"{len(self.logit_bias)} entries", f"at most {MAX_BIASES}"
            )
        for token, bias in self.logit_bias:
            if token < 0 or not -MAX_BIAS <= bias <= MAX_BIAS:
                raise SamplingError(
                    "logit_bias",
                    (token, bias),
                    f"token ids with biases of at most {MAX_BIAS:g} nats",
                )

    def apply(self, logits: Tensor, history: Sequence[int], path: Sequence[int] = ()) -> Tensor:
        """Shape rows ``[n, vocabulary]``; row ``i`` predicts what follows ``history`` and
        ``path[:i]``.

        Returns the same tensor if there is nothing to change, else a new one.
        """
        if self == NO_SHAPING:
            return logits
        logits = logits.float().clone()
        if self.repetition_penalty != 1.0:
            self._penalise(logits, history, path)
        for token, bias in self.logit_bias:
            if token < logits.shape[-1]:
                logits[:, token] += bias
        return logits

    def _penalise(self, logits: Tensor, history: Sequence[int], path: Sequence[int]) -> None:
        seen = set(history)
        firsts = [
            (i, token)
            for i, token in enumerate(path)
            if token not in seen and token not in path[:i]
        ]
        occurred = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        occurred[:, [token for token in seen if token < logits.shape[-1]]] = True
        for i, token in firsts:
            occurred[i + 1 :, token] = True
        penalised = torch.where(
            logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty
        )
        logits.copy_(torch.where(occurred, penalised, logits))


NO_SHAPING = Shaping()
