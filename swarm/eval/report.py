"""The result of an evaluation: each variant compared item by item with the plain target."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from swarm.eval.engine import EvalSample
from swarm.eval.statistics import (
    bootstrap_ratio,
    mcnemar_exact,
    non_inferior,
    paired_difference,
    wilson,
)
from swarm.eval.tasks import Task
from swarm.eval.variant import PLAIN

Interval = tuple[float, float]
TEXT_BUCKET = 20  # tokens, for acceptance by position in the text
SEED = 1


@dataclass(frozen=True)
class ReportRow:
    """One variant.

    Shares are 0 to 1; intervals are 95 %; differences are to the plain target, on the same items.

    Attributes:
        accuracy_interval: Wilson's.
        difference_interval: paired.
        p_value: of McNemar's exact test.
        non_inferior: the difference is above -margin with 97.5 % confidence.
        tokens_per_loop_interval: bootstrapped over items.
        acceptance: accepted / drafted; None if nothing was drafted.
        relaxed_per_100: committed tokens per 100 that are not the target's choice.
        deficit_per_100: nats per 100 tokens that they cost.
        mean_log_p: of the text's tokens under the target; None if not computed.
        length_drift: additional tokens, as a share of the plain target's text.
        no_stop: share of the texts that ended only by their length.
        overruled: drafts rejected because a key token was at stake, by class or signal.
        acceptance_in_window: acceptance rate by place since the last miss.
        acceptance_in_text: acceptance rate by place in the text, in steps of `TEXT_BUCKET` tokens.
    """

    name: str
    items: int
    accuracy: float
    accuracy_interval: Interval
    difference: float
    difference_interval: Interval
    p_value: float
    non_inferior: bool
    tokens_per_loop: float
    tokens_per_loop_interval: Interval
    acceptance: float | None
    relaxed_per_100: float
    deficit_per_100: float
    mean_log_p: float | None
    length_drift: float
    no_stop: float
    overruled: dict[str, int]
    acceptance_in_window: tuple[float, ...]
    acceptance_in_text: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def report(
    task: Task, samples: Mapping[str, Sequence[EvalSample]], margin: float
) -> list[ReportRow]:
    """Return a row for each variant, in order; the plain target must be among them.

    Args:
        margin: accuracy (0 to 1) that a variant may lose and still count as not inferior.
    """
    plain = samples[PLAIN.name]
    right = {name: _judge(task, taken) for name, taken in samples.items()}
    return [
        _row(name, taken, right[name], plain, right[PLAIN.name], margin)
        for name, taken in samples.items()
    ]


def _judge(task: Task, samples: Sequence[EvalSample]) -> list[bool]:
    pairs = zip(task.items, samples, strict=True)
    return [item.check(sample.generation.text) for item, sample in pairs]


def _row(
    name: str,
    samples: Sequence[EvalSample],
    right: Sequence[bool],
    plain: Sequence[EvalSample],
    plain_right: Sequence[bool],
    margin: float,
) -> ReportRow:
    difference = paired_difference(plain_right, right)
    gained = sum(now and not before for before, now in zip(plain_right, right, strict=True))
    lost = sum(before and not now for before, now in zip(plain_right, right, strict=True))
    stats = [sample.generation.stats for sample in samples]
    tokens = [s.new_tokens for s in stats]
    loops = [s.loops for s in stats]
    drafted = sum(s.drafted_tokens for s in stats)
    plain_tokens = sum(sample.generation.stats.new_tokens for sample in plain)
    return ReportRow(
        name=name,
        items=len(samples),
        accuracy=sum(right) / len(right),
        accuracy_interval=wilson(sum(right), len(right)),
        difference=difference.value,
        difference_interval=(difference.low, difference.high),
        p_value=mcnemar_exact(gained, lost),
        non_inferior=non_inferior(difference, margin),
        tokens_per_loop=sum(tokens) / sum(loops),
        tokens_per_loop_interval=bootstrap_ratio(tokens, loops, seed=SEED),
        acceptance=sum(s.accepted_tokens for s in stats) / drafted if drafted else None,
        relaxed_per_100=100 * sum(s.relaxed_tokens for s in stats) / sum(tokens),
        deficit_per_100=100 * sum(s.deficit_nats for s in stats) / sum(tokens),
        mean_log_p=_mean_log_p(samples),
        length_drift=sum(tokens) / plain_tokens - 1,
        no_stop=sum(s.finish_reason == "length" for s in stats) / len(stats),
        overruled=_overruled(samples),
        acceptance_in_window=_acceptance(samples, in_window=True),
        acceptance_in_text=_acceptance(samples, in_window=False),
    )


def _mean_log_p(samples: Sequence[EvalSample]) -> float | None:
    """Return the mean over all tokens of all texts; None if not computed."""
    log_p = 0.0
    tokens = 0
    for sample in samples:
        if sample.mean_log_p is not None:
            log_p += sample.mean_log_p * sample.generation.stats.new_tokens
            tokens += sample.generation.stats.new_tokens
    return log_p / tokens if tokens else None


def _overruled(samples: Sequence[EvalSample]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in samples:
        for piece in sample.generation.pieces:
            if piece.key:
                counts[piece.reason] = counts.get(piece.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def _acceptance(samples: Sequence[EvalSample], *, in_window: bool) -> tuple[float, ...]:
    """Return the acceptance rate of the judged drafts, by place."""
    judged: list[int] = []
    kept: list[int] = []
    for sample in samples:
        run = 0
        for at, piece in enumerate(sample.generation.pieces):
            place = run if in_window else at // TEXT_BUCKET
            was_kept = piece.origin in ("drafted", "relaxed")
            run = run + 1 if was_kept else 0
            if piece.drafted_id is None:
                continue
            more = [0] * (place + 1 - len(judged))
            judged += more
            kept += more
            judged[place] += 1
            kept[place] += was_kept
    return tuple(k / j if j else 0.0 for k, j in zip(kept, judged, strict=True))
