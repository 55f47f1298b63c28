"""What the decoder asks of several sources, and what of their guesses it sends and learns."""

from dataclasses import replace

import pytest
import torch

from helpers.decoder_bench import STREAM, answer, copies, decoder_for, guesses
from swarm.decoding.acceptance import SourceAcceptance
from swarm.decoding.confidence import Guess
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.feature_book import FeatureBook
from swarm.decoding.policy import SpeculationPlan
from swarm.decoding.rules.rule import Decision

BOTH = (Source.COPY, Source.MODEL)
WIDE = replace(STREAM, leaves=3)


def test_copies_are_asked_for_first_and_the_model_where_the_text_may_leave_them():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    ask = decoder.ask()
    assert (ask.source, ask.paths, ask.count) == (Source.COPY, ((),), WIDE.window)
    decoder.propose(ask, [copies(2, 3)])
    ask = decoder.ask()
    assert (ask.source, ask.paths, ask.lags) == (Source.COPY, ((2, 3),), (3,)), "it may go on"
    decoder.propose(ask, [[]])
    ask = decoder.ask()
    assert (ask.source, ask.count) == (Source.MODEL, 1)
    assert set(ask.paths) == {(), (2,), (2, 3)}
    assert ask.paths[0] == (2, 3), "likelier to be left there than before, as copies go"
    lags = dict(zip(ask.paths, ask.lags, strict=True))
    assert lags == {(): 1, (2,): 2, (2, 3): 3}
    decoder.propose(ask, [guesses([{(): 2, (2,): 4, (2, 3): 5}[path]]) for path in ask.paths])
    paths = [decoder.tree.path(node) for node in decoder.tree.nodes]
    assert sorted(paths) == [[2], [2, 3], [2, 3, 5], [2, 4]]


def test_a_copy_goes_out_before_the_model_has_spoken():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    decoder.next_window()
    decoder.propose(decoder.ask(), [copies(2, 3, 4)])
    assert decoder.next_window().tokens == (2, 3, 4)


def test_a_doubtful_copy_waits_for_the_model():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    decoder.next_window()
    decoder.propose(decoder.ask(), [copies(2, 3, matched=3)])
    decoder.propose(decoder.ask(), [[]])
    assert decoder.next_window() is None
    ask = decoder.ask()
    assert ask.source is Source.MODEL
    decoder.propose(ask, [guesses([2]) if path == () else [] for path in ask.paths])
    assert decoder.next_window().tokens[:2] == (2, 3)


@pytest.mark.parametrize(("matched", "sent"), [(1, [4]), (6, [2, 4])])
def test_an_unlikely_copy_is_not_sent_beside_what_the_model_guesses(matched, sent):
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    decoder.next_window()
    decoder.propose(decoder.ask(), [copies(2, matched=matched)])
    decoder.propose(decoder.ask(), [[]])
    ask = decoder.ask()
    unsure = Drafted(4, None, 0.65)
    decoder.propose(ask, [[unsure] if path == () else [] for path in ask.paths])
    assert sorted(decoder.next_window().tokens) == sent


def test_a_doubtful_copy_does_not_wait_where_nothing_else_is_asked():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=(Source.COPY,))
    decoder.next_window()
    decoder.propose(decoder.ask(), [copies(2, 3, matched=3)])
    assert decoder.next_window().tokens == (2, 3)


def test_a_branch_of_another_source_saves_the_stream():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    first = decoder.next_window()
    decoder.propose(decoder.ask(), [copies(2, matched=3)])
    decoder.propose(decoder.ask(), [[]])
    asked = decoder.ask()
    decoder.propose(asked, [[Drafted(3, None, 0.6)] if path == () else [] for path in asked.paths])
    assert sorted(decoder.next_window().tokens) == [2, 3]
    assert answer(decoder, first, 2) == [Decision(2, 3, branch=True)]


def test_a_window_that_is_waited_for_takes_sure_copies_and_then_the_model():
    decoder = decoder_for([1], SpeculationPlan(window=4), max_new_tokens=20, sources=BOTH)
    decoder.propose(decoder.ask(), [copies(2, 3, matched=20)])
    decoder.propose(decoder.ask(), [copies(4, matched=2)])
    ask = decoder.ask()
    assert (ask.source, ask.paths, ask.count) == (Source.MODEL, ((2, 3),), 2), "4 is doubtful"
    decoder.propose(ask, [guesses([5, 1])])
    assert decoder.next_window().tokens == (1, 2, 3, 5, 1)


def test_every_guess_at_a_place_is_learned_from():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    window = decoder.next_window()
    decoder.propose(decoder.ask(), [copies(2)])
    decoder.propose(decoder.ask(), [[]])
    ask = decoder.ask()
    decoder.propose(ask, [guesses([2], 3) if path == () else [] for path in ask.paths])
    right = Guess(Source.COPY, 0, None, 8), Guess(Source.MODEL, 0, 0.9)
    wrong = Guess(Source.MODEL, 1, 0.05)
    before = [decoder.confidence.chance(each) for each in (*right, wrong)]
    answer(decoder, window, 2)
    after = [decoder.confidence.chance(each) for each in (*right, wrong)]
    assert [now > then for now, then in zip(after, before, strict=True)] == [True, True, False]


def test_first_choices_are_counted_by_source_and_lag():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    first = decoder.next_window()
    decoder.propose(decoder.ask(), [copies(2, 3)])
    decoder.propose(decoder.ask(), [[]])
    ask = decoder.ask()
    decoder.propose(ask, [guesses([4], 2) if path == () else [] for path in ask.paths])
    second = decoder.next_window()
    answer(decoder, first, 2)
    answer(decoder, second, 5)
    assert decoder.counts.acceptance.by_source == (
        SourceAcceptance("copy", (1, 1), (1, 0)),
        SourceAcceptance("model", (1,), (0,)),  # its second choice was right
    )


def test_a_head_is_asked_again_where_it_had_no_guess_once_more_is_known():
    """It guesses so far behind an answer, and no further: else the stream would stand still."""
    book = FeatureBook(4)
    decoder = decoder_for([1, 2, 3], max_new_tokens=9, book=book)
    decoder.sources = (Source.FEATURES,)
    decoder.plan = replace(STREAM, branches=1)
    ask = decoder.ask()
    assert ask is not None
    decoder.propose(ask, [[Drafted(4, None, 0.9, source=Source.FEATURES)]])
    beyond = decoder.ask()
    assert beyond is not None
    decoder.propose(beyond, [[]])
    assert decoder.ask() is None
    book.answered([decoder.tree.tip], torch.zeros(1, 2))
    again = decoder.ask()
    assert again is not None
    assert again.nodes == beyond.nodes
    assert len(again.features) == 1
    decoder.propose(again, [[]])
    assert decoder.ask() is None, "nothing new is known"
