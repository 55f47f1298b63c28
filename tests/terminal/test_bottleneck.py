"""One sentence says what holds a text back, from its statistics alone."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.text_stats import text_stats, time_share
from swarm.cli.generate import generate
from swarm.outputs import Compute, Failover
from swarm.terminal.bottleneck import bottleneck, time_spent
from swarm.terminal.console import time_and_bottleneck

DRAFTS = {
    "drafter": "model",
    "drafted_tokens": 60,
    "accepted_tokens": 30,
    "rejections": 5,
    "draft_ms_per_token": 130.4,
}
LOST = Failover(("a",), (0, 4), 500.0, 0.0, 3000.0, 6500.0, 10)
TEXTS = {
    "links": (
        {"links": 0.6, "stages": 0.2},
        DRAFTS,
        "the links take 80 of the 110 ms of a loop: only nearer peers would help",
    ),
    "a slow stage": (
        {"links": 0.2, "stages": 0.6},
        DRAFTS,
        "the slowest of 2 peers computes 20 ms in a loop of 110 ms",
    ),
    "busy peers": (
        {"links": 0.25, "stages": 0.05},
        {**DRAFTS, "stage_queue_ms": (2.0, 70.0)},
        "peers are busy: in a loop of 110 ms, frames wait 72 ms for other sessions",
    ),
    "drafting": (
        {"links": 0.3, "drafting": 0.4},
        DRAFTS,
        "drafting takes 130 ms a token here: try a smaller draft",
    ),
    "drafting in a dtype that was asked for": (
        {"links": 0.3, "drafting": 0.4},
        {**DRAFTS, "compute": Compute(draft_dtype="float32", draft_dtype_asked=True)},
        "drafting takes 130 ms a token here: try --draft-dtype auto, or a smaller draft",
    ),
    "judging": (
        {"links": 0.3, "judging": 0.5},
        {**DRAFTS, "judge_ms": 264.2},
        "judging takes 264 ms an answer here: try --head peer, where a peer holds the model's head",
    ),
    "judging what a peer tells": (
        {"links": 0.3, "judging": 0.5},
        {**DRAFTS, "judge_ms": 90.0, "compute": Compute(device=None)},
        "judging takes 90 ms an answer here",
    ),
    "a draft that is seldom right": (
        {"links": 0.6, "stages": 0.2, "drafting": 0.1},
        {**DRAFTS, "accepted_tokens": 5, "rejections": 15},
        "only 25% of the drafted tokens are right, and each other one costs a loop of 110 ms: try "
        "a draft that is closer to the model",
    ),
    "no draft": (
        {"links": 0.6, "stages": 0.2},
        {},
        "each token waits for a loop of 110 ms: a small model of the same family, given with "
        "--draft, would draft ahead",
    ),
    "a lookup that found little": (
        {"links": 0.6, "stages": 0.2},
        {"drafter": "lookup", "accepted_tokens": 2, "rejections": 1},
        "each token waits for a loop of 110 ms: a small model of the same family, given with "
        "--draft, would draft ahead",
    ),
    "drafts that come too late": (
        {"links": 0.7, "stages": 0.2},
        {**DRAFTS, "accepted_tokens": 0, "rejections": 0},
        "drafting takes 130 ms a token here, and drafts come too late for a loop of 110 ms: try a "
        "smaller draft",
    ),
    "a draft that was given up because it is slow": (
        {"links": 0.3, "judging": 0.5},
        {**DRAFTS, "plain_reason": "draft_slow"},
        "drafting takes 130 ms a token here, too long to gain on a loop of 110 ms, so none is "
        "done: try a smaller draft",
    ),
    "a draft that was given up because it is wrong": (
        {"links": 0.7},
        {**DRAFTS, "plain_reason": "draft_wrong"},
        "drafts are right too seldom to gain on a loop of 110 ms, so none are sent: try another "
        "draft",
    ),
    "a drafter that failed": (
        {"links": 0.7},
        {**DRAFTS, "plain_reason": "draft_failed"},
        "drafting failed, so each token takes a loop of 110 ms",
    ),
    "a long prompt": (
        {"links": 0.1, "stages": 0.8},
        {
            **DRAFTS,
            "plain_reason": "draft_slow",
            "prompt_tokens": 3000,
            "cached_tokens": 100,
            "time_to_first_token_ms": 6210.0,
        },
        "reading 2900 tokens of the prompt took 6.2 s",
    ),
    "repairs": (
        {"links": 0.2},
        {**DRAFTS, "failovers": (LOST,)},
        "peers failed, and replacing them took 6.5 s: --standby would shorten that",
    ),
}


def text(parts, more):
    figures = {
        "new_tokens": 40,
        "seconds": 10.0,
        "loop_ms": 110.0,
        "stage_compute_ms": (10.0, 20.0),
        "stage_queue_ms": (0.0, 0.0),
    }
    return text_stats(**{**figures, **more, "share": time_share(**parts)})


@pytest.mark.parametrize(("parts", "more", "told"), TEXTS.values(), ids=TEXTS)
def test_the_greatest_cause_is_told(parts, more, told):
    assert bottleneck(text(parts, more)) == told


@pytest.mark.parametrize(
    "more",
    [
        {"plain_reason": "requested"},
        {"new_tokens": 7},
        {"share": None},
        {"share": time_share(links=0.19)},
    ],
    ids=["plain decoding was asked for", "a short text", "unknown", "no cause is worth a word"],
)
def test_where_there_is_nothing_to_tell_nothing_is_told(more):
    links = text({"links": 0.9}, DRAFTS)
    assert bottleneck(links) is not None
    assert bottleneck(text_stats(**{**vars(links), **more})) is None


def test_every_option_that_is_named_exists():
    options = {option for parameter in generate.params for option in parameter.opts}
    named = {option for *_, told in TEXTS.values() for option in re.findall(r"--[\w-]+", told)}
    assert named
    assert named <= options


@given(
    st.tuples(*[st.floats(0, 0.25)] * 4),
    st.sampled_from([*TEXTS]),
    st.integers(0, 1000),
    st.floats(0, 1e4),
)
def test_no_figures_are_too_strange(parts, like, count, ms):
    share = dict(zip(("links", "stages", "judging", "drafting"), parts, strict=True))
    strange = {"accepted_tokens": count, "loop_ms": ms, "stage_compute_ms": (), "seconds": 0.0}
    told = bottleneck(text(share, {**TEXTS[like][1], **strange}))
    assert told is None or (told and not told.endswith("."))


def test_the_time_is_told_in_one_line():
    share = time_share(links=0.51, stages=0.2, judging=0.1, drafting=0.12)
    assert time_spent(share) == (
        "51% on links, 20% computing on peers, 10% judging and 12% drafting here, 7% waiting"
    )
    stats = text({"links": 0.3, "drafting": 0.5}, DRAFTS)
    assert time_and_bottleneck(stats) == (
        "time: 30% on links, 0% computing on peers, 0% judging and 50% drafting here, 20% waiting; "
        "held back because drafting takes 130 ms a token here: try a smaller draft"
    )
    assert time_and_bottleneck(text_stats()) == ""
