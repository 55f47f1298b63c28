"""Rules by name, with their settings: ``strict``, ``adaptive:tau=0.5,budget=8``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from swarm.decoding.rules.adaptive import Adaptive
from swarm.decoding.rules.chance import Chance
from swarm.decoding.rules.lenient import Lenient
from swarm.decoding.rules.lexicon import Lexicon
from swarm.decoding.rules.near_tie import NearTie
from swarm.decoding.rules.rejection import Rejection
from swarm.decoding.rules.relaxed import Relaxation, Relaxed
from swarm.decoding.rules.rule import Rule
from swarm.decoding.rules.settings import settings_of
from swarm.decoding.rules.strict import Strict
from swarm.decoding.rules.typical import Typical
from swarm.decoding.sampling import Sampling
from swarm.errors import RuleError

EXACT: dict[str, Callable[[Sampling], Rule]] = {"strict": Strict, "rejection": Rejection}
RELAXED: dict[str, Any] = {
    "adaptive": Adaptive,
    "near_tie": NearTie,
    "typical": Typical,
    "lenient": Lenient,
    "random": Chance,
}
NAMES = (*EXACT, *RELAXED)


@dataclass(frozen=True)
class Verification:
    """A rule's name, and the settings that differ from its defaults.

    `rule` makes a new rule for each generation.

    Raises:
        RuleError: for an unknown name, or a setting that is unknown or out of range.
    """

    name: str = "strict"
    settings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise RuleError(self.name, f"the rules are {', '.join(NAMES)}")
        known = settings_of(RELAXED[self.name]) if self.name in RELAXED else {}
        for name in self.settings:
            if name not in known:
                raise RuleError(str(self), f"{self.name} has {_listed(known)}")
        self.rule(Sampling(), Lexicon(lambda _: ""))

    @classmethod
    def parse(cls, text: str) -> "Verification":
        """Read ``NAME[:KEY=NUMBER,...]``."""
        name, _, listed = text.partition(":")
        settings = {}
        for entry in filter(None, listed.split(",")):
            key, _, number = entry.partition("=")
            try:
                settings[key.strip()] = float(number)
            except ValueError:
                raise RuleError(text, f"{entry!r} is not KEY=NUMBER, such as tau=0.5") from None
        return cls(name.strip(), settings)

    def rule(self, sampling: Sampling, lexicon: Lexicon) -> Rule:
        """Return a new rule for one generation."""
        if self.name in EXACT:
            return EXACT[self.name](sampling)
        more = (lexicon,) if self.name == "adaptive" else ()
        relaxation: Relaxation = RELAXED[self.name](*more, **self.settings)
        return Relaxed(sampling, relaxation)

    def __str__(self) -> str:
        listed = ",".join(f"{name}={value:g}" for name, value in self.settings.items())
        return f"{self.name}:{listed}" if listed else self.name


def _listed(settings: dict[str, Any]) -> str:
    return "the settings " + ", ".join(settings) if settings else "no settings"
