"""How far to speculate: far where peers are idle, hardly at all where others wait."""

import pytest

from swarm.decoding.policy import MAX_DEPTH, LoopReport
from swarm.decoding.streaming import (
    BUSY_CHANCE,
    IDLE_CHANCE,
    LOOP_FRAMES,
    STREAM_BRANCHES,
    STREAM_WINDOW,
    Streaming,
)


def loop(loop_ms=100.0, stage_ms=2.0, queue_ms=0.0):
    return LoopReport(
        positions=3,
        loop_ms=loop_ms,
        drafted=2,
        kept=2,
        draft_ms=2.0,
        stage_ms=stage_ms,
        queue_ms=queue_ms,
    )


def seen(*loops):
    policy = Streaming()
    for each in loops:
        policy.observe(each)
    return policy.plan()


def test_before_anything_is_known_it_goes_as_far_as_among_idle_peers():
    plan = seen()
    assert (plan.window, plan.depth, plan.branches) == (STREAM_WINDOW, MAX_DEPTH, STREAM_BRANCHES)
    assert (plan.least_chance, plan.pace_ms) == (IDLE_CHANCE, 0.0)
    assert seen(*[loop()] * 5).least_chance == IDLE_CHANCE


def test_frames_go_at_the_pace_of_the_slowest_stage_and_in_the_long_run_so_many_a_loop():
    assert seen(*[loop(loop_ms=100, stage_ms=30)] * 5).pace_ms == pytest.approx(30)
    assert seen(*[loop(loop_ms=100, stage_ms=1)] * 5).calm_ms == pytest.approx(100 / LOOP_FRAMES)


def test_the_longer_it_waits_for_others_the_less_it_sends():
    chances = [seen(*[loop(queue_ms=ms)] * 5).least_chance for ms in (0, 5, 10, 15, 20, 80)]
    assert chances == sorted(chances)
    assert chances[0] == IDLE_CHANCE
    assert chances[-2:] == pytest.approx([BUSY_CHANCE] * 2)


def test_where_others_wait_no_second_choices_are_sent():
    assert seen(*[loop(queue_ms=10)] * 5).branches == 1


def test_it_goes_far_again_when_the_others_have_left():
    plan = seen(*[loop(queue_ms=50)] * 30, *[loop()] * 120)
    assert plan.branches == STREAM_BRANCHES
    assert plan.least_chance < 2 * IDLE_CHANCE
