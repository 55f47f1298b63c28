"""The ways of decoding that an evaluation compares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swarm.decoding.rules.choose import Verification
from swarm.eval.sample import EvalSample
from swarm.request import Options, WindowSize


@dataclass(frozen=True)
class Variant:
    """One row of an evaluation.

    Attributes:
        verify: the rule, as in `Options`.
        window: drafted tokens in a loop; 0 is plain decoding.
        without: classes of key tokens that are switched off, to measure what they contribute.
        draft_alone: the draft model decodes alone, as a control.
    """

    name: str
    verify: str = "strict"
    window: WindowSize = 0
    without: frozenset[str] = field(default_factory=frozenset)
    draft_alone: bool = False

    def options(
        self, temperature: float, seed: int, stop: tuple[str, ...], max_new_tokens: int
    ) -> Options:
        return Options(
            verify=self.verify,
            window=self.window,
            depth=1,  # tokens per loop are defined only if every window is waited for
            lookup=False,  # rules read the draft model's distributions
            learn=False,  # all rules judge the same draft
            temperature=temperature,
            seed=seed,
            stop=stop,
            max_new_tokens=max_new_tokens,
        )


PLAIN = Variant("plain target")
DRAFT_ALONE = Variant("draft alone", draft_alone=True)
# The value at which each signal marks no position.
SIGNALS_OFF = {"gap": 1.0, "contrast": 20.0, "agreement": 0.0}
CLASSES = (
    "number",
    "operator",
    "name",
    "identifier",
    "quote",
    "structure",
    "negation",
    "part of a word",
    "stop",
)


def at_equal_gain(samples: Sequence[EvalSample], window: int) -> Variant:
    """Return the blind control to a relaxed rule: it accepts the same share of misses at random."""
    passed = sum(sample.relaxed for sample in samples)
    refused = sum(sample.overruled for sample in samples)
    return ruled(f"random:rate={passed / max(1, passed + refused):.3f}", window)


def ruled(verify: str, window: WindowSize, name: str = "") -> Variant:
    """Return a rule with a window. Raises `RuleError` for a rule that does not exist."""
    return Variant(name or str(Verification.parse(verify)), verify, window)


def sweep(verify: str, setting: str, values: tuple[float, ...], window: int) -> list[Variant]:
    """Return one rule at several values of one setting."""
    base = Verification.parse(verify)
    rules = [Verification(base.name, {**base.settings, setting: value}) for value in values]
    return [ruled(str(rule), window) for rule in rules]


def ablation(verify: str, window: int, *, each: bool) -> list[Variant]:
    """Return an adaptive rule without all signals, all classes of key tokens, and both.

    Args:
        each: also without each signal and each class alone.
    """
    base = Verification.parse(verify)
    signals: list[tuple[str, Mapping[str, float]]] = []
    classes: list[tuple[str, frozenset[str]]] = []
    if each:
        signals += [(f"the signal {name}", {name: off}) for name, off in SIGNALS_OFF.items()]
        classes += [(f"the class {name}", frozenset({name})) for name in CLASSES]
    signals.append(("all signals", SIGNALS_OFF))
    classes.append(("all classes", frozenset(CLASSES)))
    ways = [
        *((name, off, frozenset[str]()) for name, off in signals),
        *((name, dict[str, float](), without) for name, without in classes),
        ("all signals and classes", SIGNALS_OFF, frozenset(CLASSES)),
    ]
    return [
        Variant(
            f"without {name}",
            str(Verification(base.name, {**base.settings, **off})),
            window,
            without,
        )
        for name, off, without in ways
    ]
