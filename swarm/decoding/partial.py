"""Deciding from a part of a prediction: the best tokens with their exact logits, and bounds of all
others.

A `PartialRow` completes the listed tokens to a whole row of logits, from which rules decide as from
any other. Its unlisted tokens share what is left of the probability evenly, and none of them scores
more than it can. So what a rule decides from the row is what it decides from the exact one wherever
the bounds say so (`choice_is_certain` and the intervals); elsewhere more has to be asked for.

`swarm.decoding.certificate` proves choices from bounds of every single logit. Here the sum of all
is known as well, which decides about top p and about the signals of rules; and hardly more than the
listed tokens are looked at, for clients on a phone.

All sums are relative to the best token, in float64. Margins cover the rounding of float32, in which
rules compute.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from swarm.decoding.candidates import CandidateRow
from swarm.decoding.sampling import LEAST_TEMPERATURE, LEAST_TOP_P, Sampling, gumbel_noise
from swarm.decoding.shaping import Shaping

SCORE_MARGIN = 1e-5  # relative, of scores: some float32 operations
MASS_MARGIN = 1e-3  # relative, of sums of probabilities
NATS = 1e-3  # by which log probabilities may be off
HUGE = 700.0  # exp of more is no float

Interval = tuple[float, float]


class PartialRow:
    """One prediction, shaped and sampled as the text wants it, as far as it is known.

    Attributes:
        logits: ``[vocabulary]`` float32, shaped, for a rule: the listed tokens' are exact.
        choice: the best token of `logits` at this place, by the sampling.
        listed: ``[k]``, the tokens whose logits are exact.
    """

    def __init__(
        self,
        row: CandidateRow,
        history: Sequence[int],
        shaping: Shaping,
        sampling: Sampling,
    ) -> None:
        """Complete what was told.

        Args:
            row: as it was told, not shaped.
            history: all tokens before the one that is predicted.
        """
        self._row = row
        self._history = history
        self._shaping = shaping
        self._sampling = sampling
        vocabulary = row.vocabulary
        self._unlisted = vocabulary - len(row.tokens)
        self._position = len(history)
        self._at = max(sampling.temperature, LEAST_TEMPERATURE) if sampling.temperature else 1.0
        self._noise = (
            gumbel_noise(sampling.seed, self._position, vocabulary)
            if sampling.temperature
            else None
        )
        self._lost = 0.0  # of the sum of exp((logit - top) / T), by capping scores
        self.listed = row.tokens
        self.logits = self._shaped(self._completed(self._at, row.scaled_log_sum))
        (self.choice,) = sampling.choose(self.logits[None], self._position)
        self._known = self.logits[row.tokens]
        self._best = float(self._known.max())
        # An unlisted token has at most the last of the best logits, and shaping may raise it.
        last = float(row.logits[min(row.plain, len(row.logits)) - 1])
        self._ceiling = (
            shaping.ceiling(last, row.tokens, len(history)) if self._unlisted else -math.inf
        )
        self._weights = ((self._known.double() - self._best) / self._at).exp()
        self._tail = self._tail_mass(last)
        self._inside = self._restriction()

    @property
    def is_whole(self) -> bool:
        """Whether every token is listed."""
        return not self._unlisted

    def at_temperature_one(self) -> Tensor:
        """Return ``[vocabulary]`` shaped logits whose softmax is the distribution that log
        probabilities are told of."""
        if self._sampling.temperature in (0.0, 1.0) and self._noise is None:
            return self.logits
        return self._shaped(self._completed(1.0, self._row.log_sum, capped=False))

    @property
    def log_probabilities_are_certain(self) -> bool:
        """Whether `at_temperature_one` gives the log probabilities of the listed tokens."""
        row = self._row
        if self.is_whole or self._shaping.changes_nothing(self.listed):
            return True
        if self._best <= self._ceiling or self._shaping.may_raise(self.listed):
            return False
        last = float(row.logits[min(row.plain, len(row.logits)) - 1])
        changed = self._changed() * math.exp(min(HUGE, last - self._best))
        rest = self._rest(1.0, row.log_sum) * math.exp(float(row.logits[0]) - self._best)
        known = float((self._known.double() - self._best).exp().sum())
        return min(changed, rest) <= NATS * known

    # Whether what is unknown could change something.

    @property
    def choice_is_certain(self) -> bool:
        """Whether no values of the unlisted logits would lead to another choice."""
        if self.is_whole:
            return True
        if self._best <= self._ceiling:  # the best of all may be unlisted
            return False
        if self._noise is None:
            return True
        place = self._place(self.choice)
        inside = self._inside
        if place is None or inside is None:
            return False
        scores = self._scores()
        rivals = scores > scores[place]
        if not bool(inside.certainly_in[place]) or bool((rivals & ~inside.certainly_out).any()):
            return False
        return inside.others_out or float(scores[place]) > self._highest_unlisted_score()

    @property
    def distribution_is_certain(self) -> bool:
        """Whether it is certain which tokens top k and top p leave in, and whether the likeliest of
        them is listed."""
        if self.is_whole:
            return True
        if self._best <= self._ceiling or self._inside is None or not math.isfinite(self._tail[1]):
            return False
        sampling = self._sampling
        restricts = sampling.top_k or sampling.top_p < 1.0 or sampling.min_p
        if not sampling.temperature or not restricts:
            return True
        inside = self._inside
        return inside.others_out and bool((inside.certainly_in | inside.certainly_out).all())

    def log_ratio(self, token: int, other: int) -> Interval:
        """Return log p(token) - log p(other), where ``token`` is listed: the interval that it is
        in."""
        known = self.logits[token].double()
        if self._place(other) is None:
            return (float(known) - self._ceiling) / self._at, math.inf
        ratio = float(known - self.logits[other].double()) / self._at
        return ratio, ratio

    def top1_gap(self) -> Interval:
        """Return the interval of p(best) - p(second). Call it if `distribution_is_certain`."""
        weights = self._left_in()
        first, second = (*weights.sort(descending=True).values[:2].tolist(), 0.0)[:2]
        low, high = self._totals()
        unlisted = self._unlisted_weight()
        return (first - max(second, unlisted)) / high, (first - second) / low

    def entropy(self) -> Interval:
        """Return the interval of the entropy, in nats. Call it if `distribution_is_certain`.

        It is least if what the unlisted tokens share is on few of them, each as likely as can be,
        and most if they share it evenly.
        """
        weights = self._left_in()
        listed = float(torch.special.entr(weights).sum())
        low, high = self._tail_left_in()
        each = self._unlisted_weight()
        least = _entropy(listed, float(weights.sum()), low, min(each, low) if low else each)
        most = _entropy(listed, float(weights.sum()), high, high / max(self._unlisted, 1))
        return min(least, most), max(least, most)

    def overlap(self, log_q: Tensor) -> Interval:
        """Return the interval of the sum of min(p, q). Call it if `distribution_is_certain`.

        Args:
            log_q: ``[vocabulary]``, natural logarithms.
        """
        q = log_q.double().exp()
        weights = self._left_in()
        low, high = self._totals()
        listed = q[self.listed]
        least = float(torch.minimum(weights / high, listed).sum())
        most = float(torch.minimum(weights / low, listed).sum())
        rest = max(0.0, float(q.sum() - listed.sum()))
        return least, most + min(rest, self._tail_left_in()[1] / low)

    # How it is completed.

    def _completed(self, temperature: float, log_sum: float, capped: bool = True) -> Tensor:
        """Return ``[vocabulary]`` logits, not shaped, whose unlisted ones share the rest evenly.

        Args:
            log_sum: of exp(logit / temperature) over all tokens.
            capped: no unlisted token scores more than the last of the best scores.
        """
        row = self._row
        top = float(row.logits[0])
        last = float(row.logits[min(row.plain, len(row.logits)) - 1])
        rest = self._rest(temperature, log_sum)
        even = top + temperature * math.log(rest / self._unlisted) if rest else -math.inf
        completed = torch.full((row.vocabulary,), min(even, last), dtype=torch.float32)
        if capped and self._noise is not None and row.scored and self._unlisted:
            score = self._last_score() - SCORE_MARGIN * (1.0 + abs(self._last_score()))
            cap = top + temperature * (score - self._noise)
            capped_tokens = int((cap < completed).sum())
            self._lost = capped_tokens * rest / self._unlisted
            completed = torch.minimum(completed, cap)
        completed[row.tokens] = row.logits
        return completed

    def _rest(self, temperature: float, log_sum: float) -> float:
        """Return the sum over the unlisted tokens of exp((logit - top) / temperature), not
        shaped."""
        if not self._unlisted:
            return 0.0
        relative = (self._row.logits.double() - float(self._row.logits[0])) / temperature
        last = float(relative[min(self._row.plain, len(relative)) - 1])
        most = self._unlisted * math.exp(last)
        whole = math.exp(min(HUGE, log_sum - float(self._row.logits[0]) / temperature))
        return min(most, max(0.0, whole - float(relative.exp().sum())))

    def _shaped(self, logits: Tensor) -> Tensor:
        return self._shaping.apply(logits[None], self._history)[0]

    # Bounds of what is not listed.

    def _place(self, token: int) -> int | None:
        found = (self.listed == token).nonzero()
        return int(found[0, 0]) if len(found) else None

    def _scores(self) -> Tensor:
        """Return what decides between the listed tokens, ``[k]``, top k and top p aside."""
        assert self._noise is not None
        return (self._known - self._best) / self._at + self._noise[self.listed]

    def _last_score(self) -> float:
        """Return the last of the best scores, not shaped; no unlisted token has more."""
        assert self._noise is not None
        row = self._row
        scores = (row.logits - row.logits[0]) / self._at + self._noise[row.tokens]
        return float(scores.topk(min(row.scored, len(scores))).values[-1])

    def _highest_unlisted_score(self) -> float:
        assert self._noise is not None
        loudest = self._noise.clone()
        loudest[self.listed] = -torch.inf
        score = float(loudest.max()) + (self._ceiling - self._best) / self._at
        if self._row.scored and not self._shaping.may_raise(self.listed):
            told = self._last_score() + (float(self._row.logits[0]) - self._best) / self._at
            score = min(score, told)
        return score + SCORE_MARGIN * (1.0 + abs(score))

    def _tail_mass(self, last: float) -> Interval:
        """Return the interval of the sum over the unlisted tokens of exp((logit - best) / T),
        shaped."""
        rest = self._rest(self._at, self._row.scaled_log_sum)
        scale = math.exp(min(HUGE, (float(self._row.logits[0]) - self._best) / self._at))
        rest *= scale
        lost = self._lost * scale
        if self._shaping.changes_nothing(self.listed):
            return max(0.0, rest - lost), rest
        if self._shaping.may_raise(self.listed):
            return 0.0, math.inf
        seen = self._changed()
        each = math.exp(min(HUGE, (last - self._best) / self._at))
        return max(0.0, rest - lost - seen * each), rest

    def _changed(self) -> int:
        """Return the most unlisted tokens that shaping changes."""
        return min(self._unlisted, self._shaping.most_changed(self._history, len(self.logits)))

    def _unlisted_weight(self) -> float:
        """Return the most that exp((logit - best) / T) of an unlisted token can be."""
        if not self._unlisted or (self._inside is not None and self._inside.others_out):
            return 0.0
        return math.exp((self._ceiling - self._best) / self._at)

    # What top k, top p and min p leave in.

    def _left_in(self) -> Tensor:
        assert self._inside is not None
        return self._weights * self._inside.certainly_in

    def _tail_left_in(self) -> Interval:
        return (0.0, 0.0) if self._inside is not None and self._inside.others_out else self._tail

    def _totals(self) -> Interval:
        known = float(self._left_in().sum())
        low, high = self._tail_left_in()
        return known + low, known + high

    def _restriction(self) -> "_Inside | None":
        """Return what is certain of top k, top p and min p; None if nothing is."""
        sampling = self._sampling
        if not math.isfinite(self._best):  # a mask bans all listed tokens
            return None
        inside = self._by_rank()
        if inside is None or not (sampling.min_p and sampling.temperature and self._unlisted):
            return inside
        margin = SCORE_MARGIN * (1.0 + abs(sampling.least))
        relative = (self._known - self._best) / self._at
        others_out = (self._ceiling - self._best) / self._at < sampling.least - margin
        likely = (relative >= sampling.least + margin) | (relative == 0.0)  # the best always is
        return _Inside(
            inside.certainly_in & likely,
            inside.certainly_out | (relative < sampling.least - margin),
            inside.others_out or others_out,
        )

    def _by_rank(self) -> "_Inside | None":
        """Return what is certain of top k and top p; None if nothing is."""
        sampling = self._sampling
        count = len(self.listed)
        everything = torch.ones(count, dtype=torch.bool)
        nothing = torch.zeros(count, dtype=torch.bool)
        if not sampling.temperature or not self._unlisted:
            # Where all is known, rules restrict the exact row.
            return _Inside(everything, nothing, others_out=not self._unlisted)
        if 0 < sampling.top_k < count + self._unlisted:
            if sampling.top_k > count:
                return None
            least = self._known.topk(sampling.top_k).values[-1]
            if float(least) <= self._ceiling:
                return None
            left = self.logits[self.listed]
            by_rule = torch.full_like(self.logits, -torch.inf)
            by_rule[self.listed] = torch.where(left >= least, left, -torch.inf)
            stays = torch.isfinite(sampling.log_probabilities(by_rule)[self.listed])
            return _Inside(stays, ~stays, others_out=True)
        if sampling.top_p >= 1.0:
            return _Inside(everything, nothing, others_out=False)
        return self._nucleus(max(sampling.top_p, LEAST_TOP_P))

    def _nucleus(self, top_p: float) -> "_Inside | None":
        """Return what is certain of top p: a token is in if those before it have less of the
        mass."""
        low, high = self._tail
        if not math.isfinite(high):
            return None
        known = float(self._weights.sum())
        least = top_p * (known + low) * (1.0 - MASS_MARGIN)
        most = top_p * (known + high) * (1.0 + MASS_MARGIN)
        # equals stand in the order of their ids, as for a rule
        by_id = self.listed.argsort()
        order = by_id[self._known[by_id].argsort(descending=True, stable=True)]
        before = torch.empty_like(self._weights)
        before[order] = self._weights[order].cumsum(0) - self._weights[order]
        # Below the ceiling, unlisted tokens may come before a listed one.
        above = self._known > self._ceiling
        others_out = float((self._weights * above).sum()) >= most
        certainly_in = above & (before < least)
        certainly_out = (above & (before >= most)) | (~above & others_out)
        return _Inside(certainly_in, certainly_out, others_out)


class _Inside:
    """Which listed tokens, ``[k]``, are left in or out for certain; whether all others are out."""

    def __init__(self, certainly_in: Tensor, certainly_out: Tensor, others_out: bool) -> None:
        self.certainly_in = certainly_in
        self.certainly_out = certainly_out
        self.others_out = others_out


def _entropy(listed: float, weight: float, tail: float, each: float) -> float:
    """Return the entropy of weights that are not normalised.

    Args:
        listed: the sum of -w log w over the listed tokens, whose sum is ``weight``.
        tail: the sum of the other weights, each of which is ``each``.
    """
    total = weight + tail
    others = -tail * math.log(each) if tail and each else 0.0
    return (listed + others) / total + math.log(total)
