"""What an evaluation found: a row for every variant, compared item by item with the plain
target."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from swarm.eval.engine import Sample
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
class Row:
    """One variant.

    Shares are 0 to 1; intervals are 95 %; differences are to the plain target, on the same items.
    """

    name: str
    items: int
    accuracy: float
    accuracy_interval: Interval  # Wilson's
    difference: float
    difference_interval: Interval  # paired
    p_value: float  # McNemar's exact test
    non_inferior: bool  # the difference is above -margin with 97.5 % confidence
    tokens_per_loop: float
    tokens_per_loop_interval: Interval  # bootstrap over items
    acceptance: float | None  # kept / drafted
    relaxed_per_100: float  # tokens where another than the target's choice was committed
    deficit_per_100: float  # nats
    mean_log_p: float | None  # of the text's tokens under the target
    length_drift: float  # tokens more than the plain target's text, as a share of it
    no_stop: float  # share of the texts that ended only by their length
    # drafts overruled because a key token was at stake, by class or signal
    overruled: dict[str, int]
    acceptance_in_window: tuple[float, ...]  # by place since the last miss
    acceptance_in_text: tuple[float, ...]  # by place in the text, in steps of TEXT_BUCKET tokens

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def report(task: Task, samples: Mapping[str, Sequence[Sample]], margin: float) -> list[Row]:
    """Rows in the order of the variants; the plain target must be among them.

    Args:
        margin: how much accuracy (0 to 1) a variant may lose and still count as not inferior.
    """
    plain = samples[PLAIN.name]
    right = {name: _judge(task, taken) for name, taken in samples.items()}
    return [
        _row(name, taken, right[name], plain, right[PLAIN.name], margin)
        for name, taken in samples.items()
    ]


def _judge(task: Task, samples: Sequence[Sample]) -> list[bool]:
    return [
        item.check(sample.generation.text) for item, sample in zip(task.items, samples, strict=True)
    ]


def _row(
    name: str,
    samples: Sequence[Sample],
    right: Sequence[bool],
    plain: Sequence[Sample],
    plain_right: Sequence[bool],
    margin: float,
) -> Row:
    difference = paired_difference(plain_right, right)
    gained = sum(now and not before for before, now in zip(plain_right, right, strict=True))
    lost = sum(before and not now for before, now in zip(plain_right, right, strict=True))
    stats = [sample.generation.stats for sample in samples]
    tokens, loops = [s.new_tokens for s in stats], [s.loops for s in stats]
    drafted = sum(s.drafted_tokens for s in stats)
    plain_tokens = sum(sample.generation.stats.new_tokens for sample in plain)
    return Row(
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


def _mean_log_p(samples: Sequence[Sample]) -> float | None:
    """Over all tokens of all texts."""
    weighted = [
        (sample.mean_log_p * sample.generation.stats.new_tokens, sample.generation.stats.new_tokens)
        for sample in samples
        if sample.mean_log_p is not None
    ]
    return (
        sum(log_p for log_p, _ in weighted) / sum(tokens for _, tokens in weighted)
        if weighted
        else None
    )


def _overruled(samples: Sequence[Sample]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in samples:
        for piece in sample.generation.pieces:
            if piece.key:
                counts[piece.reason] = counts.get(piece.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def _acceptance(samples: Sequence[Sample], *, in_window: bool) -> tuple[float, ...]:
    """Share of the judged drafts that were kept, by place."""
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
            judged, kept = judged + more, kept + more
            judged[place] += 1
            kept[place] += was_kept
    return tuple(k / j if j else 0.0 for k, j in zip(kept, judged, strict=True))
