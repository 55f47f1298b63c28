"""The ways of decoding that an evaluation compares."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from swarm.decoding.rules.choose import Verification
from swarm.outputs import Generation
from swarm.request import Options, WindowSize

Who = Literal["swarm", "draft alone"]


@dataclass(frozen=True)
class Variant:
    """One row of an evaluation.

    Attributes:
        verify: the rule, as in `Options`.
        window: drafted tokens a loop; 0 is plain decoding.
        without: classes of key tokens that are switched off, to measure what they are good for.
        who: decodes; the draft alone is a control.
    """

    name: str
    verify: str = "strict"
    window: WindowSize = 0
    without: frozenset[str] = field(default_factory=frozenset)
    who: Who = "swarm"

    def options(
        self, temperature: float, seed: int, stop: tuple[str, ...], max_new_tokens: int
    ) -> Options:
        return Options(
            verify=self.verify,
            window=self.window,
            depth=1,  # tokens a loop are told apart only where every window is waited for
            temperature=temperature,
            seed=seed,
            stop=stop,
            max_new_tokens=max_new_tokens,
        )


PLAIN = Variant("plain target")
DRAFT_ALONE = Variant("draft alone", who="draft alone")
# the value at which each signal marks nothing
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


def at_equal_gain(generations: Sequence[Generation], window: int) -> Variant:
    """The blind control to a relaxed rule: as large a share of the misses passes, whichever they
    are."""
    stats = [generation.stats for generation in generations]
    passed, refused = sum(s.relaxed_tokens for s in stats), sum(s.rejections for s in stats)
    return ruled(f"random:rate={passed / max(1, passed + refused):.3f}", window)


def ruled(verify: str, window: WindowSize, name: str = "") -> Variant:
    """A rule with a window. Raises `RuleError` for a rule that does not exist."""
    return Variant(name or str(Verification.parse(verify)), verify, window)


def sweep(verify: str, setting: str, values: tuple[float, ...], window: int) -> list[Variant]:
    """One rule at several values of one setting."""
    base = Verification.parse(verify)
    rules = [Verification(base.name, {**base.settings, setting: value}) for value in values]
    return [ruled(str(rule), window) for rule in rules]


def ablation(verify: str, window: int) -> list[Variant]:
    """An adaptive rule with one signal, or one class of key tokens, switched off at a time, and all
    of each kind."""
    base = Verification.parse(verify)
    without_signals = [
        ruled(str(Verification(base.name, {**base.settings, **off})), window, f"without {name}")
        for name, off in [
            *((f"the signal {signal}", {signal: value}) for signal, value in SIGNALS_OFF.items()),
            ("all signals", SIGNALS_OFF),
        ]
    ]
    without_classes = [
        Variant(f"without {name}", str(base), window, frozenset(classes))
        for name, classes in [
            *((f"the class {kind}", {kind}) for kind in CLASSES),
            ("all classes", set(CLASSES)),
        ]
    ]
    return [*without_signals, *without_classes]
