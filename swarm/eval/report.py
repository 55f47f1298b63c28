"""The result of an evaluation: each variant compared item by item with the plain target."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from swarm.eval.sample import EvalSample, was_accepted
from swarm.eval.statistics import (
    Interval,
    bootstrap_ratio,
    bootstrap_ratio_difference,
    mcnemar_exact,
    non_inferior,
    paired_difference,
    rouge_l,
    wilson,
)
from swarm.eval.tasks import Task
from swarm.eval.variant import PLAIN

TEXT_BUCKET = 20  # tokens, for acceptance by position in the text
SEED = 1


@dataclass(frozen=True)
class RightAnswers:
    """How many answers of a variant are right, beside those of the plain target.

    Shares are 0 to 1; intervals are 95 %; differences are on the same items.

    Attributes:
        accuracy_interval: Wilson's.
        difference_interval: paired.
        p_value: of McNemar's exact test.
        non_inferior: the difference is above -margin with 97.5 % confidence.
    """

    accuracy: float
    accuracy_interval: Interval
    difference: float
    difference_interval: Interval
    p_value: float
    non_inferior: bool


@dataclass(frozen=True)
class ReportRow:
    """One variant.

    Shares are 0 to 1; intervals are 95 %, bootstrapped over items.

    Attributes:
        answers: None for a task whose answers no program can check.
        acceptance: accepted / drafted; None if nothing was drafted.
        relaxed_per_100: committed tokens per 100 that are not the target's choice.
        deficit_per_100: nats per 100 tokens that they cost.
        mean_log_p: of the texts' tokens under the target; None if not computed.
        log_p_difference_interval: of ``mean_log_p`` minus the plain target's; None likewise.
        length_drift: additional tokens, as a share of the plain target's text.
        agreement: mean over the texts of ROUGE-L between their tokens and the plain target's.
        no_stop: share of the texts that ended only by their length.
        overruled: drafts rejected because a key token was at stake, by class or signal.
        acceptance_in_window: acceptance rate by place since the last miss.
        acceptance_in_text: acceptance rate by place in the text, in steps of `TEXT_BUCKET` tokens.
    """

    name: str
    items: int
    answers: RightAnswers | None
    tokens_per_loop: float
    tokens_per_loop_interval: Interval
    acceptance: float | None
    relaxed_per_100: float
    deficit_per_100: float
    mean_log_p: float | None
    log_p_difference_interval: Interval | None
    length_drift: float
    agreement: float
    agreement_interval: Interval
    no_stop: float
    overruled: dict[str, int]
    acceptance_in_window: tuple[float, ...]
    acceptance_in_text: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, the figures of the answers among the others."""
        plain = asdict(self)
        return plain | (plain.pop("answers") or {})


def report(
    task: Task, samples: Mapping[str, Sequence[EvalSample]], margin: float
) -> list[ReportRow]:
    """Return a row for each variant, in order; the plain target must be among them.

    Args:
        margin: accuracy (0 to 1) that a variant may lose and still count as not inferior.
    """
    plain = samples[PLAIN.name]
    plain_right = judged(task, plain)
    return [
        _row(name, taken, plain, _answers(plain_right, judged(task, taken), margin))
        for name, taken in samples.items()
    ]


def judged(task: Task, samples: Sequence[EvalSample]) -> list[bool] | None:
    """Return whether each answer is right; None if no program can tell."""
    checks = [item.check for item in task.items]
    pairs = zip(checks, samples, strict=True)
    if None in checks:
        return None
    return [check is not None and check(sample.text) for check, sample in pairs]


def _answers(
    before: Sequence[bool] | None, after: Sequence[bool] | None, margin: float
) -> RightAnswers | None:
    if before is None or after is None:
        return None
    difference = paired_difference(before, after)
    gained = sum(now and not then for then, now in zip(before, after, strict=True))
    lost = sum(then and not now for then, now in zip(before, after, strict=True))
    return RightAnswers(
        accuracy=sum(after) / len(after),
        accuracy_interval=wilson(sum(after), len(after)),
        difference=difference.value,
        difference_interval=(difference.low, difference.high),
        p_value=mcnemar_exact(gained, lost),
        non_inferior=non_inferior(difference, margin),
    )


def _row(
    name: str,
    samples: Sequence[EvalSample],
    plain: Sequence[EvalSample],
    answers: RightAnswers | None,
) -> ReportRow:
    tokens = [sample.tokens for sample in samples]
    loops = [sample.loops for sample in samples]
    drafted = sum(sample.drafted for sample in samples)
    pairs = zip(samples, plain, strict=True)
    alike = [rouge_l(sample.token_ids, other.token_ids) for sample, other in pairs]
    log_p = _log_p(samples)
    plain_log_p = _log_p(plain)
    return ReportRow(
        name=name,
        items=len(samples),
        answers=answers,
        tokens_per_loop=sum(tokens) / sum(loops),
        tokens_per_loop_interval=bootstrap_ratio(tokens, loops, seed=SEED),
        acceptance=sum(sample.accepted for sample in samples) / drafted if drafted else None,
        relaxed_per_100=100 * sum(sample.relaxed for sample in samples) / sum(tokens),
        deficit_per_100=100 * sum(sample.deficit_nats for sample in samples) / sum(tokens),
        mean_log_p=None if log_p is None else sum(log_p) / sum(tokens),
        log_p_difference_interval=None
        if log_p is None or plain_log_p is None
        else bootstrap_ratio_difference(
            (plain_log_p, [sample.tokens for sample in plain]), (log_p, tokens), seed=SEED
        ),
        length_drift=sum(tokens) / sum(sample.tokens for sample in plain) - 1,
        agreement=sum(alike) / len(alike),
        agreement_interval=bootstrap_ratio(alike, [1.0] * len(alike), seed=SEED),
        no_stop=sum(sample.finish_reason == "length" for sample in samples) / len(samples),
        overruled=_overruled(samples),
        acceptance_in_window=_acceptance(samples, in_window=True),
        acceptance_in_text=_acceptance(samples, in_window=False),
    )


def _log_p(samples: Sequence[EvalSample]) -> list[float] | None:
    """Return the log p of each text, summed over its tokens; None if not computed."""
    means = [sample.mean_log_p for sample in samples]
    pairs = zip(means, samples, strict=True)
    if None in means:
        return None
    return [mean * sample.tokens for mean, sample in pairs if mean is not None]


def _overruled(samples: Sequence[EvalSample]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in samples:
        for piece in sample.pieces:
            if piece.key:
                counts[piece.reason] = counts.get(piece.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def _acceptance(samples: Sequence[EvalSample], *, in_window: bool) -> tuple[float, ...]:
    """Return the acceptance rate of the judged drafts, by place."""
    judged: list[int] = []
    kept: list[int] = []
    for sample in samples:
        run = 0
        for at, piece in enumerate(sample.pieces):
            place = run if in_window else at // TEXT_BUCKET
            was_kept = was_accepted(piece)
            run = run + 1 if was_kept else 0
            if piece.drafted_id is None:
                continue
            more = [0] * (place + 1 - len(judged))
            judged += more
            kept += more
            judged[place] += 1
            kept[place] += was_kept
    return tuple(k / j if j else 0.0 for k, j in zip(kept, judged, strict=True))
