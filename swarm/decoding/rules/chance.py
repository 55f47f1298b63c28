"""A control for evaluations: relaxes blindly. Any useful rule must be better than this."""

from dataclasses import dataclass

from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.relaxed import Miss, MissVerdict
from swarm.decoding.rules.settings import Setting, check_settings
from swarm.decoding.sampling import NoisePurpose, uniform


@dataclass
class Chance:
    """Accepts each miss with the same probability."""

    rate: float = Setting(0.5, 0, 1, "share of the misses that pass")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def exact(self) -> bool:
        return self.rate == 0

    def verdict(self, miss: Miss) -> MissVerdict:
        drawn = uniform(miss.sampling.seed, miss.position, NoisePurpose.ACCEPT)
        return MissVerdict(drawn < self.rate, f"chance {self.rate:.2f}")

    def settles(self, miss: Miss, row: PartialRow) -> bool:
        return True
