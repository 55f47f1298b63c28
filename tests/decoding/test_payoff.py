"""A draft that gains nothing is noticed, and given up for as long as that is so."""

from dataclasses import replace

import pytest

from swarm.decoding.payoff import DRAFTING_LOOPS, PLAIN_LOOPS, RETRY_LOOPS
from swarm.decoding.policy import LoopReport
from swarm.decoding.streaming import Streaming
from swarm.decoding.window import PROBE_WINDOW, AutoWindow, FixedWindow

LOOP_MS = 100.0


def answer(drafts, alpha, draft_ms, slower=1.0):
    """One answer of a stream; while the client drafts, all takes ``slower`` times as long."""
    loop_ms = LOOP_MS * (slower if drafts else 1.0)
    pace_ms = (1 - alpha) * loop_ms + alpha * min(draft_ms * slower, loop_ms)
    return LoopReport(
        positions=2,
        loop_ms=loop_ms,
        drafted=drafts,
        kept=0,
        draft_ms=draft_ms * slower * drafts,
        draft_tokens=int(drafts),
        tokens=1,
        elapsed_ms=pace_ms if drafts else loop_ms,
    )


def write(policy, answers, *law):
    """Let a policy see answers; return for each of them whether the next one was drafted for."""
    drafted = []
    for _ in range(answers):
        plan = policy.plan()
        policy.observe(answer(plan.window > 0, *law))
        drafted.append(policy.plan().window > 0)
    return drafted


def share(drafted):
    return sum(drafted) / len(drafted)


def test_a_draft_that_takes_as_long_as_a_loop_is_given_up_and_tried_again_now_and_then():
    policy = Streaming()
    drafted = write(policy, 600, 0.8, 110.0)
    assert all(drafted[: DRAFTING_LOOPS - 1]), "it had to be measured first"
    assert 0 < share(drafted[100:]) < 0.3
    write(policy, RETRY_LOOPS // 2, 0.8, 110.0)
    assert policy.plan().reason == "draft_slow"


def test_a_draft_that_is_dear_and_seldom_right_is_given_up():
    policy = Streaming()
    assert share(write(policy, 600, 0.02, 20.0)[100:]) < 0.3
    assert policy.plan().reason == "draft_wrong"


def test_a_draft_that_pays_is_left_alone():
    assert all(write(Streaming(), 300, 0.8, 20.0)), "two tokens a loop and more: no doubt"


def test_a_cheap_draft_is_left_alone_however_seldom_it_is_right():
    assert all(write(Streaming(), 300, 0.0, LOOP_MS / 20))


def test_a_draft_that_pays_a_little_is_compared_and_kept():
    """Now and then a few loops are plain, to compare."""
    drafted = write(Streaming(), 600, 0.4, 40.0)
    assert 0.9 < share(drafted) < 1
    assert 1 - share(drafted) <= 2 * (PLAIN_LOOPS + 1) / RETRY_LOOPS


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_what_drafting_takes_from_everything_else_counts(slower):
    """The loops with drafts promise a gain; beside the loops without them there is none."""
    drafted = write(Streaming(), 600, 0.5, 30.0, slower)
    assert (share(drafted[100:]) > 0.9) == (slower == 1.0)


def test_a_draft_that_comes_too_late_is_not_kept_because_of_a_chance_in_the_pace():
    """Other programs slow the plain loops down, while these are compared."""
    policy = Streaming()
    drafted = []
    for number in range(300):
        drafts = policy.plan().window > 0
        slow = answer(drafts, 0.0, 1450.0, 1.0)
        policy.observe(
            replace(slow, elapsed_ms=slow.elapsed_ms * (1.0 if drafts else 1.0 + number % 3))
        )
        drafted.append(drafts)
    assert share(drafted[50:]) < 0.3
    assert policy.plan().reason == "draft_slow"


def test_it_drafts_again_once_the_draft_is_good_enough():
    policy = Streaming()
    write(policy, 200, 0.8, 110.0)
    assert all(write(policy, 400, 0.9, 20.0)[-100:])


def test_a_repair_of_the_chain_says_nothing_of_either_way():
    policy = Streaming()
    write(policy, 10, 0.8, 40.0)
    pause = answer(True, 0.8, 40.0)
    policy.observe(LoopReport(**{**vars(pause), "elapsed_ms": 60_000.0}))
    assert share(write(policy, 300, 0.8, 40.0)[-200:]) > 0.9


def test_a_window_that_does_not_pay_says_why():
    """The chain's law is known from loops of several sizes."""
    slow, wrong = AutoWindow(), AutoWindow()
    for policy, kept, draft_ms in [(slow, 4, 900.0), (wrong, 0, 1.0)]:
        for n in (2, 4, 6) * 10:
            policy.observe(LoopReport(n + 1, 20.0 + 5.0 * n, n, min(kept, n), draft_ms * n))
    assert [slow.plan().reason, wrong.plan().reason] == ["draft_slow", "draft_wrong"]
    assert (slow.plan().window, wrong.plan().window) == (0, 0)
    assert AutoWindow(PROBE_WINDOW).plan().reason is None


def test_plain_decoding_that_was_asked_for_says_so():
    assert FixedWindow(0).plan().reason == "requested"
    assert FixedWindow(3).plan().reason is None
