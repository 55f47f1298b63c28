"""What several sources are asked, one after the other."""

from dataclasses import replace

import torch

from helpers.decoder_bench import STREAM, copies, decoder_for, guesses
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.feature_book import FeatureBook
from swarm.decoding.policy import SpeculationPlan

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


def test_a_window_that_is_waited_for_takes_sure_copies_and_then_the_model():
    decoder = decoder_for([1], SpeculationPlan(window=4), max_new_tokens=20, sources=BOTH)
    decoder.propose(decoder.ask(), [copies(2, 3, matched=20)])
    decoder.propose(decoder.ask(), [copies(4, matched=2)])
    ask = decoder.ask()
    assert (ask.source, ask.paths, ask.count) == (Source.MODEL, ((2, 3),), 2), "4 is doubtful"
    decoder.propose(ask, [guesses([5, 1])])
    assert decoder.next_window().tokens == (1, 2, 3, 5, 1)


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
