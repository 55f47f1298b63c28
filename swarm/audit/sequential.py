"""Wald's sequential probability ratio test: is a peer's rate of disagreeing audits a liar's rate?

Wald, "Sequential Tests of Statistical Hypotheses" (1945). H0: a share `HONEST` of a peer's audits
disagree because of other peers. H1: a share `LYING` does, as with a peer that lies in one frame of
a hundred, in texts of ten frames. Each audit adds the logarithm of its likelihood ratio, H1 to H0.
A disagreement that several peers may have caused counts for each of them in part.
"""

import math
from dataclasses import dataclass
from typing import Literal

HONEST = 0.003
LYING = 0.1
FALSE_ALARM = 1e-4  # alpha: an honest peer is condemned
MISS = 1e-2  # beta: a liar is cleared

CONDEMNED = math.log((1 - MISS) / FALSE_ALARM)  # 9.2: not quite three disagreements
CLEARED = math.log(MISS / (1 - FALSE_ALARM))  # -4.6: 45 agreements
AGREEMENT = math.log((1 - LYING) / (1 - HONEST))
DISAGREEMENT = math.log(LYING / HONEST)

AuditVerdict = Literal["open", "cleared", "condemned"]


@dataclass(frozen=True)
class Test:
    """The state of one peer's test: the logarithm of the likelihood ratio, in nats."""

    __test__ = False  # pytest would collect it by its name

    nats: float = 0.0

    def agreed(self) -> "Test":
        """Return the state after an audit that found the peer's part right."""
        return Test(self.nats + AGREEMENT)

    def disagreed(self, share: float = 1.0) -> "Test":
        """Return the state after an audit that disagreed, because of this peer by a chance."""
        return Test(self.nats + share * DISAGREEMENT)

    @property
    def verdict(self) -> AuditVerdict:
        if self.nats >= CONDEMNED:
            return "condemned"
        return "cleared" if self.nats <= CLEARED else "open"
