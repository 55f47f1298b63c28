"""Rejection sampling (Leviathan et al. 2023, Chen et al. 2023): exact in distribution.

Plain decoding with the same seed gives another text (with `Strict` it gives the same), drawn from
the same distribution. More drafted tokens are accepted where the draft's noise is not the target's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.rule import Decision, Needs, Rows
from swarm.decoding.sampling import NoisePurpose, Sampling, uniform


@dataclass(frozen=True)
class Rejection:
    """Accepts a drafted x with probability min(1, p(x) / q(x)), else draws from max(0, p - q).

    The latter is normalised. The noise for both is independent of the noise of the draft's choice.
    """

    sampling: Sampling
    exact = True
    needs_drawn = True
    needs = Needs.LOGITS

    def judge(
        self,
        logits: Rows,
        history: Sequence[int],
        drafted: Sequence[Drafted],
        choices: Sequence[int | None] = (),
    ) -> list[Decision]:
        decisions: list[Decision] = []
        for i, proposal in enumerate(drafted):
            position = len(history) + i
            p = self._probabilities(logits[i])
            q = self._proposed(proposal, p)
            drawn = uniform(self.sampling.seed, position, NoisePurpose.ACCEPT)
            if drawn * q[proposal.token] < p[proposal.token]:
                decisions.append(Decision(proposal.token, proposal.token))
                continue
            residual = (p - q).clamp(min=0.0)
            token = self.sampling.draw(residual.log(), position, NoisePurpose.REDRAW)
            reason = f"p = {p[proposal.token]:.2f}"
            return [*decisions, Decision(token, proposal.token, reason=reason)]
        if len(logits) > len(drafted):
            position = len(history) + len(drafted)
            last = self._probabilities(logits[len(drafted)]).log()
            token = self.sampling.draw(last, position, NoisePurpose.REDRAW)
            decisions.append(Decision(token, None))
        return decisions

    def settles(self, row: PartialRow, history: Sequence[int], drafted: Drafted | None) -> bool:
        return row.is_whole  # what is left of p - q may lie anywhere

    def _probabilities(self, row: Tensor | None) -> Tensor:
        assert row is not None  # see `needs`
        return self.sampling.probabilities(row)

    def _proposed(self, proposal: Drafted, p: Tensor) -> Tensor:
        """Return q, ``[vocabulary]``: all on the token itself if it came from no distribution."""
        if proposal.logits is not None:
            return self.sampling.probabilities(proposal.logits)
        q = p.new_zeros(p.shape)
        q[proposal.token] = 1.0
        return q
