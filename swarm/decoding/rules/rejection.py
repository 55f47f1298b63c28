"""Speculative sampling by rejection (Leviathan et al. 2023, Chen et al. 2023): exact in
distribution.

The text for a seed is not that of plain decoding with this seed, as it is with `Strict`, but it is
drawn from the same distribution. More of a draft's guesses are kept where its noise is not the
target's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.rule import Decision
from swarm.decoding.sampling import Sampling, Stream, uniform


@dataclass(frozen=True)
class Rejection:
    """Keeps a drafted x with probability min(1, p(x) / q(x)); else draws from max(0, p - q),
    normalised.

    The noise for both is independent of the noise by which the draft chose.
    """

    sampling: Sampling
    exact = True

    def judge(
        self, logits: Tensor, history: Sequence[int], drafted: Sequence[Drafted]
    ) -> list[Decision]:
        decisions: list[Decision] = []
        for i, proposal in enumerate(drafted):
            position = len(history) + i
            p = self.sampling.probabilities(logits[i])
            q = self._proposed(proposal, p)
            if (
                uniform(self.sampling.seed, position, Stream.ACCEPT) * q[proposal.token]
                < p[proposal.token]
            ):
                decisions.append(Decision(proposal.token, proposal.token))
                continue
            residual = (p - q).clamp(min=0.0)
            token = self.sampling.draw(residual.log(), position, Stream.REDRAW)
            return [
                *decisions,
                Decision(token, proposal.token, reason=f"p = {p[proposal.token]:.2f}"),
            ]
        if len(logits) > len(drafted):
            last = self.sampling.probabilities(logits[len(drafted)]).log()
            decisions.append(
                Decision(self.sampling.draw(last, len(history) + len(drafted), Stream.REDRAW), None)
            )
        return decisions

    def _proposed(self, proposal: Drafted, p: Tensor) -> Tensor:
        """q, ``[vocabulary]``: all on the token itself where it came from no distribution."""
        if proposal.logits is not None:
            return self.sampling.probabilities(proposal.logits)
        q = p.new_zeros(p.shape)
        q[proposal.token] = 1.0
        return q
