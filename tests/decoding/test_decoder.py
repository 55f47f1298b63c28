"""What the decoder drafts, sends and commits, step by step."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.decoder_bench import (
    STOP,
    STREAM,
    VOCABULARY,
    Target,
    answer,
    decoder_for,
    guesses,
    propose,
    run,
)
from swarm.decoding.candidates import CandidateRow
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.policy import SpeculationPlan
from swarm.decoding.rules.rule import Decision
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling
from swarm.decoding.windows import ResumePoint, Window


def told_whole(best):
    """What a peer tells of a prediction: all of it, and that this token is the best by far."""
    tokens = [best, *(token for token in range(VOCABULARY) if token != best)]
    logits = torch.tensor([100.0, *[-100.0] * (VOCABULARY - 1)])
    return CandidateRow(torch.tensor(tokens), logits, 100.0, 100.0, VOCABULARY, 0, VOCABULARY)


def told_little():
    """Only one token, and that all others may be as good."""
    all_alike = math.log(VOCABULARY)
    return CandidateRow(torch.tensor([1]), torch.zeros(1), all_alike, all_alike, 1, 0, VOCABULARY)


def test_plain_decoding_takes_one_loop_a_token():
    decoder = decoder_for([1, 2, 3], max_new_tokens=9)
    run(decoder, Target(1, stops=False))
    counts = decoder.counts
    assert (counts.loops, counts.frames, counts.sent, counts.held, counts.drafted) == (
        9,
        9,
        9,
        9,
        0,
    )
    assert (counts.most_in_flight, counts.flushes, counts.waits) == (1, 0, 9)


def test_a_perfect_draft_commits_a_window_and_one_more_a_loop():
    decoder = decoder_for([1, 2, 3], SpeculationPlan(window=8), max_new_tokens=18)
    run(decoder, Target(1, stops=False))
    counts = decoder.counts
    assert (counts.loops, counts.drafted, counts.accepted, counts.waits) == (2, 16, 16, 2)


def test_a_draft_that_is_always_wrong_costs_no_token():
    decoder = decoder_for([1, 2, 3], SpeculationPlan(window=2), max_new_tokens=5)
    run(decoder, Target(1, stops=False), ("wrong",))
    # At the last token there is nothing left to draft.
    counts = decoder.counts
    assert (counts.loops, counts.drafted, counts.accepted, counts.rejected, counts.flushes) == (
        5,
        7,
        0,
        4,
        4,
    )


def test_a_long_prompt_travels_in_chunks_that_do_not_wait_for_each_other():
    decoder = decoder_for([1, 2, 3, 4, 5, 1, 2], max_new_tokens=5, chunk=3)
    windows = [decoder.next_window() for _ in range(4)]
    assert windows == [
        Window(0, 0, 1, (1, 2, 3), None, 0, 0),
        Window(0, 3, 4, (4, 5, 1), None, 0, 3),
        Window(0, 6, 7, (2,), None, 1, 6),
        None,
    ]
    assert answer(decoder, windows[0]) == answer(decoder, windows[1]) == []
    assert answer(decoder, windows[2], 4) == [Decision(4, None)]
    assert decoder.next_window() == Window(0, 7, 8, (4,), None, 1, 7)


def test_the_prompt_goes_out_at_once_where_frames_need_not_wait():
    decoder = decoder_for([1, 2], STREAM, max_new_tokens=9)
    assert decoder.next_window() == Window(0, 0, 1, (1, 2), None, 1, 0)
    propose(decoder, [3, 4])
    window = decoder.next_window()
    assert (window.tokens[0], window.root, window.first) == (3, 0, 3), (
        "only what was answered is a root"
    )


def test_a_window_that_is_waited_for_is_drafted_before_it_is_sent():
    decoder = decoder_for([1, 2], SpeculationPlan(window=3), max_new_tokens=9)
    assert decoder.next_window() is None
    ask = decoder.ask()
    assert (ask.text, ask.paths, ask.count) == ((1, 2), ((),), 3)
    assert decoder.next_window() is None
    decoder.propose(ask, [guesses([3, 4, 5])])
    assert decoder.next_window() == Window(0, 0, 1, (1, 2, 3, 4, 5), None, 4, 0)
    assert decoder.ask() is None


def test_a_drafter_that_has_nothing_to_say_holds_nothing_up():
    decoder = decoder_for([1, 2], SpeculationPlan(window=3), max_new_tokens=9)
    decoder.propose(decoder.ask(), [guesses([3])])
    decoder.propose(decoder.ask(), [])
    assert decoder.next_window().tokens == (1, 2, 3)


def test_a_miss_voids_what_the_chain_holds_beyond_it():
    decoder = decoder_for([1, 2], SpeculationPlan(window=4), max_new_tokens=9)
    propose(decoder, [3, 4, 5, 1])
    window = decoder.next_window()
    assert answer(decoder, window, 3, 2) == [Decision(3, 3), Decision(2, 4)]
    assert decoder.urgent
    propose(decoder, [5, 5, 5, 5])
    # The correction follows token 3, whose serial is 3; four more were sent after it.
    assert decoder.next_window() == Window(1, 3, 7, (2, 5, 5, 5, 5), (4, 1, 1, 1, 1), 5, 3)


def test_a_stop_token_within_a_window_ends_the_text_there():
    decoder = decoder_for([1, 2], SpeculationPlan(window=4), max_new_tokens=9)
    propose(decoder, [3, STOP, 5, 1])
    window = decoder.next_window()
    assert window.tokens == (1, 2, 3, STOP)
    decisions = answer(decoder, window, 3, STOP, 4)
    assert [decision.token for decision in decisions] == [3, STOP]
    assert (decoder.finish_reason, decoder.next_window()) == ("stop", None)


def test_the_last_token_is_not_drafted_because_the_target_brings_it():
    assert decoder_for([1, 2], SpeculationPlan(window=8), max_new_tokens=4).ask().count == 3
    assert decoder_for([1, 2], SpeculationPlan(window=8), max_new_tokens=1).ask() is None


def test_a_miss_on_a_draft_that_was_not_sent_voids_nothing():
    decoder = decoder_for([1, 2, 3], STREAM, max_new_tokens=9)
    window = decoder.next_window()
    propose(decoder, [4])
    assert answer(decoder, window, 1) == [Decision(1, 4)]
    assert decoder.next_window() == Window(0, 3, 4, (1,), None, 1, 3)
    assert decoder.counts.flushes == 0


def test_windows_go_out_before_the_answers_come():
    decoder = decoder_for([1], SpeculationPlan(window=2, depth=3), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2, 3])
    second = decoder.next_window()
    propose(decoder, [4])
    third = decoder.next_window()
    assert [window.tokens for window in (first, second, third)] == [(1,), (2, 3), (4,)]
    assert decoder.next_window() is None, "three frames are in flight"
    assert answer(decoder, first, 2) == [Decision(2, 2)]
    assert answer(decoder, second, 3, 4) == [Decision(3, 3), Decision(4, 4)]
    assert answer(decoder, third, 5) == [Decision(5, None)]
    assert decoder.counts.most_in_flight == 3


def test_answers_to_several_frames_may_come_as_one():
    decoder = decoder_for([1], SpeculationPlan(window=2, depth=3), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2, 3])
    taken = decoder.take([first, decoder.next_window()])
    assert [row for row, _ in taken] == [0, 1, 2]


def test_answers_of_an_older_epoch_are_ignored():
    decoder = decoder_for([1], SpeculationPlan(window=2, depth=3), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2, 3])
    second = decoder.next_window()
    assert answer(decoder, first, 5) == [Decision(5, 2)]
    assert decoder.take([second]) == []
    assert decoder.next_window() == Window(1, 1, 4, (5,), (3,), 1, 1)


def test_the_second_choice_goes_along_and_saves_the_stream():
    decoder = decoder_for([1], STREAM, max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2], 3)
    second = decoder.next_window()
    assert (second.tokens, second.parents) == ((2, 3), (1, 2)), "both follow token 1"
    assert answer(decoder, first, 3) == [Decision(3, 2, branch=True)]
    assert (decoder.counts.flushes, decoder.counts.waits, decoder.urgent) == (0, 1, False)
    ask = decoder.ask()
    assert (ask.text, ask.paths) == ((1, 3), ((),)), "the text goes on there"
    decoder.propose(ask, [guesses([4])])
    third = decoder.next_window()
    assert (third.root, third.tokens, third.parents) == (1, (4,), None)
    assert [row for row, _ in decoder.take([second])] == [1], (
        "the answer behind the other choice is worth nothing"
    )


def test_a_second_choice_that_was_not_sent_saves_nothing():
    decoder = decoder_for([1], SpeculationPlan(window=1, depth=8, branches=2), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2], 3)
    assert decoder.next_window().tokens == (2,)
    assert answer(decoder, first, 3) == [Decision(3, 2)]
    assert (decoder.counts.flushes, decoder.urgent, decoder.counts.branched) == (1, True, 0)


def test_the_likeliest_goes_first_and_the_unlikely_does_not_go():
    decoder = decoder_for(
        [1], SpeculationPlan(window=8, depth=8, branches=3, least_chance=0.3), max_new_tokens=20
    )
    decoder.next_window()
    decoder.propose(decoder.ask(), [[Drafted(2, None, 0.5, ((3, 0.45), (4, 0.05)))]])
    assert decoder.ask().paths == ((2,),)
    assert decoder.next_window().tokens == (2, 3)
    assert decoder.next_window() is None


def test_frames_follow_closely_after_a_turn_and_then_calm_down():
    decoder = decoder_for(
        [1], SpeculationPlan(window=1, depth=64, pace_ms=2.0, calm_ms=7.0), max_new_tokens=20
    )
    pauses = []
    for token in (2, 3, 4, 5):
        decoder.next_window()
        pauses.append(decoder.pause_ms)
        propose(decoder, [token])
    assert pauses == [2.0, 4.0, 6.0, 7.0]
    decoder.plan = SpeculationPlan(window=1, depth=64, pace_ms=30.0, calm_ms=7.0)
    assert decoder.pause_ms == 30.0, "never faster than the slowest stage"


def test_before_the_first_answer_the_prompt_is_sent_again():
    decoder = decoder_for([1, 2, 3, 4, 5, 1, 2], max_new_tokens=5, chunk=3)
    first, second = decoder.next_window(), decoder.next_window()
    answer(decoder, first)
    assert second.root == 3
    assert decoder.resume() == ResumePoint(1, 0, 6, ())
    assert [decoder.next_window() for _ in range(4)] == [
        Window(1, 0, 7, (1, 2, 3), (7, 1, 1), 0, 0),
        Window(1, 9, 10, (4, 5, 1), None, 0, 3),
        last := Window(1, 12, 13, (2,), None, 1, 6),
        None,
    ]
    assert decoder.take([second]) == [], "what was in flight is stale"
    for window in (
        Window(1, 0, 7, (1, 2, 3), (7, 1, 1), 0, 0),
        Window(1, 9, 10, (4, 5, 1), None, 0, 3),
    ):
        assert answer(decoder, window) == []
    assert answer(decoder, last, 4) == [Decision(4, None)]


def test_what_was_answered_is_replayed_and_what_was_not_is_sent_again():
    decoder = decoder_for([1, 2], STREAM, max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [3, 4], 5)
    second = decoder.next_window()
    assert (second.root, second.tokens, second.parents) == (0, (3, 4, 5, 5), (1, 1, 3, 3))
    assert answer(decoder, first, 3) == [Decision(3, 3)]
    assert decoder.resume() == ResumePoint(1, 2, 6, (1, 2))
    assert decoder.urgent
    assert decoder.take([second]) == []
    again = decoder.next_window()
    assert (again.epoch, again.root, again.first) == (1, 2, 7)
    assert (again.tokens, again.parents) == ((3, 4, 5), (5, 1, 2)), (
        "the tip, and the drafts that may still follow it"
    )
    assert answer(decoder, again, 5)[0] == Decision(5, 4, branch=True)
    assert decoder.counts.held == 3, "the last token of the prompt, and two more, each but once"


def test_one_who_resumes_twice_goes_back_to_the_same_place():
    decoder = decoder_for([1, 2], max_new_tokens=9)
    answer(decoder, decoder.next_window(), 3)
    answer(decoder, decoder.next_window(), 4)
    assert decoder.resume() == ResumePoint(1, 3, 3, (1, 2, 3))
    assert decoder.resume() == ResumePoint(2, 3, 3, (1, 2, 3))
    assert decoder.next_window() == Window(2, 3, 4, (4,), None, 1, 3)


def test_what_was_told_of_tokens_that_are_sent_again_decides_nothing_before_it_is_told_again():
    """The chain fails while it is asked for more of the first of three predictions."""
    decoder = decoder_for([1, 2], STREAM, Strict(Sampling(temperature=1.0)), max_new_tokens=20)
    propose(decoder, [3, 4])
    first = decoder.next_window()
    nodes = [node for _, node in decoder.take([first])]
    assert [node.token for node in nodes] == [2, 3, 4]
    assert decoder.judge_told(nodes, [told_little(), told_whole(4), told_little()]) == []
    assert decoder.undecided is nodes[0]
    decoder.resume()
    decoder.plan = replace(STREAM, window=0)
    ((_, tip),) = decoder.take([decoder.next_window()])
    assert [each.token for each in decoder.judge_told([tip], [told_whole(3)])] == [3]
    assert decoder.undecided is None
    assert decoder.next_window().root == tip.serial, "of a token that the chain holds"


def test_a_question_that_was_withdrawn_may_be_asked_again():
    decoder = decoder_for([1], SpeculationPlan(window=2), max_new_tokens=20)
    late = decoder.ask()
    assert (decoder.ask(), decoder.next_window()) == (None, None)
    decoder.resume()
    ask = decoder.ask()
    assert ask == late
    decoder.propose(late, [guesses([4, 4])])
    assert decoder.tree.nodes == []
    decoder.propose(ask, [guesses([2, 3])])
    assert decoder.next_window().tokens == (1, 2, 3)


def test_a_draft_that_comes_too_late_is_dropped():
    decoder = decoder_for([1], STREAM, max_new_tokens=20)
    window = decoder.next_window()
    ask = decoder.ask()
    answer(decoder, window, 2)
    decoder.propose(ask, [guesses([3])])
    assert decoder.tree.nodes == []
    assert decoder.ask().text == (1, 2)


def test_the_likeliest_places_are_drafted_at_once():
    decoder = decoder_for([1], replace(STREAM, leaves=3), max_new_tokens=20)
    ask = decoder.ask()
    assert ask.paths == ((),), "there is but one place yet"
    decoder.propose(ask, [guesses([2], 3, 4)])
    ask = decoder.ask()
    assert (ask.text, ask.paths, ask.count) == ((1,), ((2,), (3,), (4,)), 1)
    decoder.propose(ask, [guesses([5], 1), [], guesses([1])])
    assert [decoder.tree.path(node) for node in decoder.tree.nodes[3:]] == [[2, 5], [2, 1], [4, 1]]
    assert decoder.ask().paths == ((2, 5), (2, 1), (4, 1)), (
        "behind token 3 the drafter has nothing to say"
    )


def test_of_several_drafts_those_that_come_too_late_are_dropped():
    decoder = decoder_for([1], replace(STREAM, leaves=3), max_new_tokens=20)
    window = decoder.next_window()
    decoder.propose(decoder.ask(), [guesses([2], 3, 4)])
    ask = decoder.ask()
    answer(decoder, window, 3)
    decoder.propose(ask, [guesses([5]), guesses([1]), guesses([5])])
    assert [decoder.tree.path(node) for node in decoder.tree.nodes] == [[1]]
    assert decoder.counts.drafted == 2


def test_a_window_that_is_waited_for_is_one_line():
    decoder = decoder_for([1], SpeculationPlan(window=6, branches=3, leaves=3), max_new_tokens=20)
    decoder.propose(decoder.ask(), [guesses([2], 3, 4)])
    ask = decoder.ask()
    assert (ask.paths, ask.count) == (((2,),), 3)


@pytest.mark.parametrize("wrong", [{"prompt": []}, {"max_new_tokens": 0}, {"chunk": 1}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        decoder_for(**{"prompt": [1], "max_new_tokens": 1, **wrong})
