"""Wald's sequential probability ratio test: is this peer's rate of disagreeing audits that of a
liar?

Wald, "Sequential Tests of Statistical Hypotheses" (1945). H0: a share `HONEST` of its audits
disagree for reasons of others. H1: a share `LYING` does, which is what a peer that lies in one
frame of a hundred shows in texts of ten frames. Each audit adds the logarithm of how much likelier
it is under H1. A disagreement that several peers may have caused counts for each of them in part.
"""

import math
from dataclasses import dataclass
from typing import Literal

HONEST, LYING = 0.003, 0.1
FALSE_ALARM, MISS = 1e-4, 1e-2  # alpha: an honest peer is condemned; beta: a liar is cleared

CONDEMNED = math.log((1 - MISS) / FALSE_ALARM)  # 9.2: not quite three disagreements
CLEARED = math.log(MISS / (1 - FALSE_ALARM))  # -4.6: 45 agreements
AGREEMENT = math.log((1 - LYING) / (1 - HONEST))
DISAGREEMENT = math.log(LYING / HONEST)

Verdict = Literal["open", "cleared", "condemned"]


@dataclass(frozen=True)
class Test:
    """Where the test of one peer stands: the logarithm of the likelihood ratio, in nats."""

    __test__ = False  # for pytest, which takes the name for one of its own

    nats: float = 0.0

    def agreed(self) -> "Test":
        """An audit found the peer's part right."""
        return Test(self.nats + AGREEMENT)

    def disagreed(self, share: float = 1.0) -> "Test":
        """An audit found something wrong, which this peer did by a chance of ``share``."""
        return Test(self.nats + share * DISAGREEMENT)

    @property
    def verdict(self) -> Verdict:
        if self.nats >= CONDEMNED:
            return "condemned"
        return "cleared" if self.nats <= CLEARED else "open"
