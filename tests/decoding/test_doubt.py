"""Which guesses go out, and which wait for other sources or are left."""

from dataclasses import replace

import pytest

from helpers.decoder_bench import STREAM, answer, copies, decoder_for, guesses
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.rules.rule import Decision

BOTH = (Source.COPY, Source.MODEL)
WIDE = replace(STREAM, leaves=3)


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
