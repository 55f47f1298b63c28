"""For comparison: the top-2 rule. It ignores the token's class, and what the misses add up to."""

from dataclasses import dataclass

from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.relaxed import Miss, MissVerdict
from swarm.decoding.rules.settings import Setting, check_settings


@dataclass
class NearTie:
    """Accepts the target's second choice if p(second) >= ratio x p(first)."""

    ratio: float = Setting(0.5, 0, 1, "how likely the second choice must be, relative to the first")
    exact = False

    def __post_init__(self) -> None:
        check_settings(self)

    def verdict(self, miss: Miss) -> MissVerdict:
        first, second = miss.target.topk(2).values.exp().tolist()
        p = miss.target[miss.drafted.token].exp().item()
        return MissVerdict(p >= second and p >= self.ratio * first, f"{p:.2f} beside {first:.2f}")

    def settles(self, miss: Miss, row: PartialRow) -> bool:
        return row.is_whole
