"""What holds a text's speed back, in a sentence: from its statistics alone.

`CAUSES` is the table. Each cause knows the part of the text's time that it stands for, and what a
user can do about it. The one with the greatest part is told.
"""

from collections.abc import Callable
from dataclasses import dataclass

from swarm.outputs import Stats, TimeShare

LEAST_TOKENS = 8  # shorter texts are mostly prompt
LONG_PROMPT = 64  # tokens to read: fewer take about one loop
LEAST_SHARE = 0.2  # of the text's time: less holds nothing back
SELDOM = 0.5  # chance of acceptance below which a draft is seldom right
NO_HEAD = "try --head peer, where a peer holds the model's head"
FASTEST_DTYPE = "try --draft-dtype auto, or a smaller draft"
SMALLER_DRAFT = "try a smaller draft"


@dataclass(frozen=True)
class Cause:
    """Something that can hold a text back.

    Attributes:
        share: the part of the text's time that it stands for; 0 where it does not apply.
        sentence: what goes on behind "held back because", without a full stop.
    """

    share: Callable[[Stats, TimeShare], float]
    sentence: Callable[[Stats], str]


def bottleneck(stats: Stats) -> str | None:
    """Return what holds a text back, and what to do about it, for a sentence after "because".

    None where nothing does: the text is too short, plain decoding was asked for, or no part of the
    time is worth a word.
    """
    share = stats.share
    if share is None or stats.new_tokens < LEAST_TOKENS or stats.plain_reason == "requested":
        return None
    cause = max(CAUSES, key=lambda each: each.share(stats, share))
    return cause.sentence(stats) if cause.share(stats, share) >= LEAST_SHARE else None


def time_spent(share: TimeShare) -> str:
    """Return a text's shares of time as part of a sentence."""
    return (
        f"{share.links:.0%} on links, {share.stages:.0%} computing on peers, {share.judging:.0%} "
        f"judging and {share.drafting:.0%} drafting here, {share.waiting:.0%} waiting"
    )


def _decided_plainly(stats: Stats, share: TimeShare) -> float:
    """The client did not draft, though it could: that explains all other times."""
    return float(stats.plain_reason in ("draft_failed", "draft_slow", "draft_wrong"))


def _mostly_prompt(stats: Stats, share: TimeShare) -> float:
    """Most of the text's time went by before its first token: that explains all other times."""
    long = stats.prompt_tokens - stats.cached_tokens >= LONG_PROMPT
    return float(long and stats.time_to_first_token_ms > stats.seconds * 1e3 / 2)


def _why_plain(stats: Stats) -> str:
    loop = f"a loop of {stats.loop_ms:.0f} ms"
    if stats.plain_reason == "draft_failed":
        return f"drafting failed, so each token takes {loop}"
    if stats.plain_reason == "draft_wrong":
        return f"drafts are right too seldom to gain on {loop}, so none are sent: try another draft"
    return (
        f"drafting takes {_draft_ms(stats):.0f} ms a token here, too long to gain on {loop}, so "
        f"none is done: {_faster_draft(stats)}"
    )


def _draft_ms(stats: Stats) -> float:
    return stats.draft_ms_per_token or 0.0


def _faster_draft(stats: Stats) -> str:
    """Return what would make drafting faster here."""
    return FASTEST_DTYPE if stats.compute.draft_dtype_asked else SMALLER_DRAFT


def _loops(stats: Stats, share: TimeShare) -> float:
    return share.links + share.stages + _queues(stats, share)


def _undrafted(stats: Stats, share: TimeShare) -> float:
    return 0.0 if _drafts(stats) else _loops(stats, share)


def _late(stats: Stats, share: TimeShare) -> float:
    """Drafts were made and none was judged: the text had gone on before they came."""
    late = _drafts(stats) and stats.draft_ms_per_token and not _judged(stats)
    return _loops(stats, share) if late else 0.0


def _seldom_right(stats: Stats, share: TimeShare) -> float:
    seldom = _drafts(stats) and _judged(stats) and _acceptance(stats) < SELDOM
    return _loops(stats, share) if seldom else 0.0


def _queues(stats: Stats, share: TimeShare) -> float:
    """The part of the loops in which frames waited for other sessions; `TimeShare.waiting` has
    it."""
    queue_ms = sum(stats.stage_queue_ms)
    at_work_ms = max(stats.loop_ms - queue_ms, 1e-3)
    return min(share.waiting, (share.links + share.stages) * queue_ms / at_work_ms)


def _repairs(stats: Stats, share: TimeShare) -> float:
    return min(share.waiting, _pauses_s(stats) / stats.seconds) if stats.seconds else 0.0


def _pauses_s(stats: Stats) -> float:
    return sum(failover.pause_ms for failover in stats.failovers) / 1e3


def _drafts(stats: Stats) -> bool:
    """Whether a draft model drafts, or a lookup that was worth it."""
    return stats.drafter not in (None, "lookup") or stats.accepted_tokens * 2 > stats.new_tokens


def _judged(stats: Stats) -> int:
    return stats.accepted_tokens + stats.rejections


def _acceptance(stats: Stats) -> float:
    """Return the chance that a draft was right, given that all before it were."""
    return stats.accepted_tokens / max(_judged(stats), 1)


def _on_links_ms(stats: Stats) -> float:
    return max(0.0, stats.loop_ms - sum(stats.stage_compute_ms) - sum(stats.stage_queue_ms))


# Of equal shares the first is told.
CAUSES = (
    Cause(
        _mostly_prompt,
        lambda stats: (
            f"reading {stats.prompt_tokens - stats.cached_tokens} tokens of the prompt took "
            f"{stats.time_to_first_token_ms / 1e3:.1f} s"
        ),
    ),
    Cause(_decided_plainly, _why_plain),
    Cause(
        _undrafted,
        lambda stats: (
            f"each token waits for a loop of {stats.loop_ms:.0f} ms: a small model of the same "
            "family, given with --draft, would draft ahead"
        ),
    ),
    Cause(
        _late,
        lambda stats: (
            f"drafting takes {_draft_ms(stats):.0f} ms a token here, and drafts come too late for "
            f"a loop of {stats.loop_ms:.0f} ms: {_faster_draft(stats)}"
        ),
    ),
    Cause(
        _seldom_right,
        lambda stats: (
            f"only {_acceptance(stats):.0%} of the drafted tokens are right, and each other one "
            f"costs a loop of {stats.loop_ms:.0f} ms: try a draft that is closer to the model"
        ),
    ),
    Cause(
        lambda stats, share: share.drafting,
        lambda stats: (
            f"drafting takes {_draft_ms(stats):.0f} ms a token here: {_faster_draft(stats)}"
        ),
    ),
    Cause(
        lambda stats, share: share.judging,
        lambda stats: (
            f"judging takes {stats.judge_ms or 0.0:.0f} ms an answer here"
            + (f": {NO_HEAD}" if stats.compute.device is not None else "")
        ),
    ),
    Cause(
        lambda stats, share: share.stages,
        lambda stats: (
            f"the slowest of {len(stats.stage_compute_ms)} peers computes "
            f"{max(stats.stage_compute_ms, default=0.0):.0f} ms in a loop of {stats.loop_ms:.0f} ms"
        ),
    ),
    Cause(
        _queues,
        lambda stats: (
            f"peers are busy: in a loop of {stats.loop_ms:.0f} ms, frames wait "
            f"{sum(stats.stage_queue_ms):.0f} ms for other sessions"
        ),
    ),
    Cause(
        _repairs,
        lambda stats: (
            f"peers failed, and replacing them took {_pauses_s(stats):.1f} s: --standby would "
            "shorten that"
        ),
    ),
    Cause(
        lambda stats, share: share.links,
        lambda stats: (
            f"the links take {_on_links_ms(stats):.0f} of the {stats.loop_ms:.0f} ms of a loop: "
            "only nearer peers would help"
        ),
    ),
)
