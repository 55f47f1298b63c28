"""For comparison: lenience as in Leviathan et al. 2023, appendix A.5."""

import math
from dataclasses import dataclass

from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.relaxed import Miss, MissVerdict
from swarm.decoding.rules.settings import Setting, check_settings
from swarm.decoding.sampling import NoisePurpose, uniform


@dataclass
class Lenient:
    """Accepts a miss with probability min(1, p / (l x q)).

    A guess without a distribution has q = 1.
    """

    l: float = Setting(  # noqa: E741
        0.3, 1e-6, 1, "lenience: 1 is rejection sampling's test, the smaller the more passes"
    )
    exact = False

    def __post_init__(self) -> None:
        check_settings(self)

    def verdict(self, miss: Miss) -> MissVerdict:
        q = 1.0 if miss.draft is None else math.exp(float(miss.draft[miss.drafted.token]))
        chance = min(1.0, math.exp(miss.log_p) / (self.l * q)) if q else 0.0
        drawn = uniform(miss.sampling.seed, miss.position, NoisePurpose.ACCEPT)
        return MissVerdict(drawn < chance, f"chance {chance:.2f}")

    def settles(self, miss: Miss, row: PartialRow) -> bool:
        return row.is_whole
