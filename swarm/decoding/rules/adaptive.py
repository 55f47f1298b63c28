"""DSD's rule as we reconstruct it: strict for key tokens, bounded leniency for all others.

The paper (arXiv 2511.11733) names three signals that mark key tokens and a leniency tau, and
publishes no thresholds. docs/verification.md lists what we reconstructed, docs/evaluation.md how
the defaults were found.
"""

from collections import deque
from dataclasses import dataclass, field

from swarm.decoding.partial import Interval, PartialRow
from swarm.decoding.rules.lexicon import Fences, Lexicon
from swarm.decoding.rules.relaxed import Miss, MissVerdict
from swarm.decoding.rules.settings import Setting, check_settings
from swarm.decoding.rules.signals import agreement, entropy, entropy_contrast, top1_gap

MARGIN = 1e-3  # of a signal or a cost: sums over a vocabulary are rounded
BUDGET_TOKENS = 100  # the budget holds for any 100 tokens in a row


@dataclass
class Adaptive:
    """Accepts a miss if no key token is at stake, tau allows its cost, and the budget does too.

    A token is *key* by its text (`Lexicon`, for the drafted token and for the choice that it would
    replace), or by the distributions at its position: the target's best token leads its second by
    more than ``gap``, the target is surer than the draft by more than ``contrast``, or the two
    overlap by less than ``agreement``. High entropy alone is never a reason to relax.

    In greedy decoding the gap of a miss within ``tau`` is at most ``tanh(tau / 2)``, so that a
    larger ``gap`` marks no more than ``tau`` refuses.

    ``tau = 0`` or ``budget = 0`` is strict verification.
    """

    lexicon: Lexicon
    tau: float = Setting(
        1.0, 0, 20, "nats that a token may be less likely than the choice it replaces"
    )
    budget: float = Setting(
        12.0, 0, 1e4, f"nats that {BUDGET_TOKENS} tokens in a row may cost together"
    )
    gap: float = Setting(0.7, 0, 1, "key if the target's best is ahead of its second by more")
    contrast: float = Setting(
        1.5, -20, 20, "key if the target's entropy is lower than the draft's by more nats"
    )
    agreement: float = Setting(0.2, 0, 1, "key if the distributions overlap by less")
    _fences: Fences = field(init=False)
    # (position, nats) of the misses accepted among the last 100 tokens
    _spent: deque[tuple[int, float]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        check_settings(self)
        self._fences = Fences(self.lexicon.decode)

    @property
    def exact(self) -> bool:
        return self.tau == 0 or self.budget == 0

    def verdict(self, miss: Miss) -> MissVerdict:
        if self._fences.inside(miss.history):
            return MissVerdict(False, "code", key=True)
        for token in (miss.choice, miss.drafted.token):
            if kind := self.lexicon.key(token, miss.history):
                return MissVerdict(False, kind, key=True)
        if signal := self._signal(miss):
            return MissVerdict(False, signal, key=True)
        cost = miss.deficit_nats
        if self.tau == 0 or cost > self.tau:
            return MissVerdict(False, f"{cost:.2f} nats less likely")
        return self._pay(miss.position, cost)

    def settles(self, miss: Miss, row: PartialRow) -> bool:
        if self._fences.inside(miss.history):
            return True
        if any(self.lexicon.key(each, miss.history) for each in (miss.choice, miss.drafted.token)):
            return True
        key = self._is_key(miss, row)
        if key is not False:
            return key is True
        least, most = row.log_ratio(miss.choice, miss.drafted.token)
        cost = max(0.0, least), max(0.0, most)
        if _above(cost, self.tau):
            return True
        spent = sum(nats for at, nats in self._spent if at > miss.position - BUDGET_TOKENS)
        affordable = _above((cost[0] + spent, cost[1] + spent), self.budget)
        return _above(cost, self.tau) is False and affordable is not None

    def _is_key(self, miss: Miss, row: PartialRow) -> bool | None:
        """Return whether a signal marks the position as key; None if that is not certain."""
        signals = [_above(row.top1_gap(), self.gap)]
        if miss.draft is not None:
            least, most = row.entropy()
            draft = entropy(miss.draft)
            signals.append(_above((draft - most, draft - least), self.contrast))
            least, most = row.overlap(miss.draft)
            signals.append(_above((-most, -least), -self.agreement))
        # the first signal is the reason that is told
        return next((signal for signal in signals if signal is not False), False)

    def _signal(self, miss: Miss) -> str:
        """Return the first signal that marks the position as key, or "" if none does."""
        if top1_gap(miss.target) > self.gap:
            return "the target is sure"
        if miss.draft is None:
            return ""
        if entropy_contrast(miss.target, miss.draft) > self.contrast:
            return "the draft is unsure"
        return "the models disagree" if agreement(miss.target, miss.draft) < self.agreement else ""

    def _pay(self, position: int, cost: float) -> MissVerdict:
        while self._spent and self._spent[0][0] <= position - BUDGET_TOKENS:
            self._spent.popleft()
        if self.budget == 0 or sum(nats for _, nats in self._spent) + cost > self.budget:
            return MissVerdict(False, "the budget is spent")
        self._spent.append((position, cost))
        return MissVerdict(True, f"{cost:.2f} nats less likely")


def _above(value: Interval, limit: float) -> bool | None:
    """Return whether a value is above a limit; None if that is not certain."""
    least, most = value
    if least > limit + MARGIN:
        return True
    return False if most < limit - MARGIN else None
