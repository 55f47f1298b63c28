"""What the misses of a study have in common: how costly they are, and what follows from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from swarm.decoding.rules.adaptive import Adaptive
from swarm.eval.statistics import RESAMPLES, Interval, rouge_l
from swarm.eval.study import MissFacts, StudiedText

SEED = 1
# Misses of about the same cost: the ends of their ranges, in nats.
COST_BINS = (0.25, 0.5, 1.0, 2.0, np.inf)
Chosen = Callable[[MissFacts], bool]

# Sums over misses. Those behind the first three are of probes, each by its weight.
_FIGURES = (
    *("misses", "nats", "probes"),
    *("weight", "alike", "log_p", "tokens", "own_log_p", "own_tokens"),
    *("checked", "lost", "gained"),
)
Sums = NDArray[np.float64]  # [resamples, bins, figures]; the first resample has each text once


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, bootstrapped over texts; NaN where there is nothing."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Consequences:
    """What follows from some misses of a study.

    Attributes:
        per_100: of these misses in 100 drafted tokens.
        nats: mean cost of one.
        probes: misses whose consequences were tried.
        alike: mean ROUGE-L, 0 to 1, of the rest of the text with the target's own.
        log_p: mean log p of a token of the rest, minus that of the target's own rest, in nats.
        lost: right answers, in 100 probes, that the miss makes wrong, minus wrong ones that it
            makes right; NaN if no program checks answers.
    """

    per_100: Estimate
    nats: Estimate
    probes: int
    alike: Estimate
    log_p: Estimate
    lost: Estimate


class Study:
    """The texts of a study, prepared to be asked about groups of misses.

    All groups are resampled alike, so that their differences are paired.
    """

    def __init__(self, texts: Sequence[StudiedText]) -> None:
        self.texts = texts
        rng = np.random.default_rng(SEED)
        picks = rng.integers(0, len(texts), (RESAMPLES, len(texts)))
        weights = np.stack([np.bincount(pick, minlength=len(texts)) for pick in picks])
        self._weights = np.vstack([np.ones(len(texts)), weights])
        self._drafted = self._weights @ np.array([text.drafted for text in texts], dtype=float)

    def consequences(self, chosen: Chosen) -> Consequences:
        """Return what follows from the misses that are chosen."""
        sums = self._sums(chosen).sum(axis=1)
        of = dict(zip(_FIGURES, sums.T, strict=True))
        return Consequences(
            per_100=_estimate(100 * of["misses"] / self._drafted),
            nats=_estimate(_ratio(of["nats"], of["misses"])),
            probes=int(of["probes"][0]),
            alike=_estimate(_alike(sums)),
            log_p=_estimate(_log_p(sums)),
            lost=_estimate(_lost(sums)),
        )

    def beside(self, chosen: Chosen, others: Chosen, *, at_equal_cost: bool) -> "Beside":
        """Return how much more, or less, follows from some misses than from others.

        Args:
            at_equal_cost: compare within `COST_BINS`, each weighted by the chosen misses in it;
                bins without one of either are left out.
        """
        mine = self._sums(chosen)
        theirs = self._sums(others)
        if not at_equal_cost:
            mine = mine.sum(axis=1, keepdims=True)
            theirs = theirs.sum(axis=1, keepdims=True)
        weights = _at(mine, "weight")

        def difference(figure: Callable[[Sums], Sums]) -> Estimate:
            gaps = figure(mine) - figure(theirs)
            known = np.isfinite(gaps)
            total = np.where(known, weights * np.nan_to_num(gaps), 0.0).sum(axis=1)
            return _estimate(_ratio(total, np.where(known, weights, 0.0).sum(axis=1)))

        return Beside(difference(_alike), difference(_log_p), difference(_lost))

    def cheapest(self, count: int) -> Chosen:
        """Return a choice of the ``count`` misses that cost least."""
        costs = sorted(miss.deficit_nats for text in self.texts for miss in text.misses)
        limit = costs[count - 1] if count else -1.0
        return lambda miss: miss.deficit_nats <= limit

    def count(self, chosen: Chosen) -> int:
        """Return how many misses are chosen."""
        return sum(chosen(miss) for text in self.texts for miss in text.misses)

    def _sums(self, chosen: Chosen) -> Sums:
        """Return sums over the texts of each resample."""
        figures = self._figures
        picked = np.array([chosen(miss) for text in self.texts for miss in text.misses], dtype=bool)
        table = np.zeros((len(self.texts), len(COST_BINS), figures.shape[1]))
        np.add.at(table, (self._text_of[picked], self._bin_of[picked]), figures[picked])
        sums: Sums = np.tensordot(self._weights, table, axes=1)
        return sums

    @cached_property
    def _text_of(self) -> NDArray[np.intp]:
        """The text of each miss."""
        return np.repeat(np.arange(len(self.texts)), [len(text.misses) for text in self.texts])

    @cached_property
    def _bin_of(self) -> NDArray[np.intp]:
        """The bin of each miss."""
        costs = [miss.deficit_nats for text in self.texts for miss in text.misses]
        return np.searchsorted(COST_BINS, costs)

    @cached_property
    def _figures(self) -> NDArray[np.float64]:
        """The figures of each miss."""
        rows = [_figures_of(text, miss) for text in self.texts for miss in text.misses]
        return np.array(rows, dtype=float).reshape(-1, len(_FIGURES))


@dataclass(frozen=True)
class Beside:
    """Differences of two groups of misses (`Consequences`); None where there is no other group."""

    alike: Estimate | None = None
    log_p: Estimate | None = None
    lost: Estimate | None = None


def marks(miss: MissFacts, rule: Adaptive) -> list[str]:
    """Return the classes and signals by which an adaptive rule takes a position for key."""
    signals = {
        "gap": miss.gap > rule.gap,
        "contrast": miss.contrast > rule.contrast,
        "agreement": miss.agreement < rule.agreement,
    }
    return [
        *(f"the class {each}" for each in miss.classes),
        *(f"the signal {name}" for name, marked in signals.items() if marked),
    ]


def _figures_of(text: StudiedText, miss: MissFacts) -> list[float]:
    nats = min(miss.deficit_nats, 1e3)
    probe = miss.probe
    if probe is None:
        return [1.0, nats, *[0.0] * (len(_FIGURES) - 2)]
    rest = text.rest(miss)
    checked = probe.right is not None and text.right is not None
    of_probe = (
        1.0,
        rouge_l(probe.tokens, text.tokens[rest]),
        sum(probe.log_p),
        len(probe.tokens),
        sum(text.log_p[rest]),
        len(text.tokens[rest]),
        checked,
        checked and bool(text.right) and not probe.right,
        checked and not text.right and bool(probe.right),
    )
    return [1.0, nats, 1.0, *(probe.weight * figure for figure in of_probe)]


def _at(sums: Sums, figure: str) -> Sums:
    found: Sums = sums[..., _FIGURES.index(figure)]
    return found


def _alike(sums: Sums) -> Sums:
    return _ratio(_at(sums, "alike"), _at(sums, "weight"))


def _log_p(sums: Sums) -> Sums:
    theirs = _ratio(_at(sums, "own_log_p"), _at(sums, "own_tokens"))
    return _ratio(_at(sums, "log_p"), _at(sums, "tokens")) - theirs


def _lost(sums: Sums) -> Sums:
    return _ratio(100 * (_at(sums, "lost") - _at(sums, "gained")), _at(sums, "checked"))


def _ratio(above: Sums, below: Sums) -> Sums:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _estimate(values: Sums) -> Estimate:
    """Return the figure of all texts, with the interval of its resamples."""
    value, resampled = float(values[0]), values[1:]
    if not np.isfinite(resampled).any():
        return Estimate(value, (np.nan, np.nan))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(value, (float(low), float(high)))
