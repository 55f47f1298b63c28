"""For comparison: the top-2 rule. Blind to what the token is, and to what it adds up to."""

from dataclasses import dataclass

from swarm.decoding.rules.relaxed import Miss, Verdict
from swarm.decoding.rules.settings import Setting, check_settings


@dataclass
class NearTie:
    """Lets the target's second choice pass if p(second) >= ratio x p(first)."""

    ratio: float = Setting(0.5, 0, 1, "how likely the second choice must be, measured by the first")
    exact = False

    def __post_init__(self) -> None:
        check_settings(self)

    def verdict(self, miss: Miss) -> Verdict:
        first, second = miss.target.topk(2).values.exp().tolist()
        p = miss.target[miss.drafted.token].exp().item()
        return Verdict(p >= second and p >= self.ratio * first, f"{p:.2f} beside {first:.2f}")
