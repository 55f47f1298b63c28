"""A control for evaluations: relaxes blindly. A rule that is no better than this is no rule."""

from dataclasses import dataclass

from swarm.decoding.rules.relaxed import Miss, Verdict
from swarm.decoding.rules.settings import Setting, check_settings
from swarm.decoding.sampling import Stream, uniform


@dataclass
class Chance:
    """Lets each miss pass with the same probability."""

    rate: float = Setting(0.5, 0, 1, "share of the misses that pass")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def exact(self) -> bool:
        return self.rate == 0

    def verdict(self, miss: Miss) -> Verdict:
        return Verdict(
            uniform(miss.sampling.seed, miss.position, Stream.ACCEPT) < self.rate,
            f"chance {self.rate:.2f}",
        )
