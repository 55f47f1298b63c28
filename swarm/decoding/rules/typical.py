"""For comparison: Medusa's typical acceptance (Cai et al. 2024, section 2.3.1)."""

import math
from dataclasses import dataclass

from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.relaxed import Miss, MissVerdict
from swarm.decoding.rules.settings import Setting, check_settings
from swarm.decoding.rules.signals import entropy


@dataclass
class Typical:
    """Accepts a token if p > min(epsilon, delta x exp(-H(p))).

    The less sure the target is, the more tokens are accepted.
    """

    epsilon: float = Setting(0.3, 0, 1, "no token more likely than this is refused")
    delta: float = Setting(0.6, 0, 100, "how likely a token must be where the target is unsure")
    exact = False

    def __post_init__(self) -> None:
        check_settings(self)

    def verdict(self, miss: Miss) -> MissVerdict:
        threshold = min(self.epsilon, self.delta * math.exp(-entropy(miss.target)))
        p = math.exp(miss.log_p)
        return MissVerdict(p > threshold, f"p = {p:.2f}, threshold {threshold:.2f}")

    def settles(self, miss: Miss, row: PartialRow) -> bool:
        return row.is_whole
