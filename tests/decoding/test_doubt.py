"""Which guesses go out, and which wait for other sources or are left."""

from dataclasses import replace

import pytest

from helpers.decoder_bench import STREAM, answer, copies, decoder_for, guesses
from swarm.decoding.confidence import Confidence, Guess
from swarm.decoding.doubt import ALONE_CHANCE, SURE_CHANCE, settled, sure_beginning
from swarm.decoding.draft_tree import DraftNode, Vote
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


class ByLag(Confidence):
    """Believes every guess up to a lag, and notes what it was asked."""

    def __init__(self, sure_until: int) -> None:
        super().__init__()
        self.sure_until = sure_until
        self.asked: list[Guess] = []

    def chance(self, guess: Guess) -> float:
        self.asked.append(guess)
        return SURE_CHANCE if guess.lag <= self.sure_until else SURE_CHANCE - 0.01


@pytest.mark.parametrize(("sure_until", "length"), [(2, 0), (3, 1), (4, 2), (5, 3), (9, 3)])
def test_a_line_is_sure_up_to_its_first_doubtful_token(sure_until: int, length: int) -> None:
    line = copies(7, 8, 9, matched=5)
    assert sure_beginning(line, 3, ByLag(sure_until)) == line[:length]


def test_each_token_of_a_line_lies_one_further_behind_the_last_answer() -> None:
    confidence = ByLag(9)
    sure_beginning([Drafted(7, None, 0.8), *copies(8, matched=5)], 3, confidence)
    assert confidence.asked == [
        Guess(Source.MODEL, 0, 0.8, 0, lag=3),
        Guess(Source.COPY, 0, None, 5, lag=4),
    ]


def behind(parent: DraftNode, chance: float, *sources: Source, asked: tuple[Source, ...] = BOTH):
    """Return a node that these sources have guessed; ``asked`` are those asked what follows it."""
    node = DraftNode(5, parent.position + 1, parent)
    node.chance = chance
    node.votes = [Vote(Guess(source, 0, None), chance) for source in sources]
    node.asked = set(asked)
    return node


def tip(*asked: Source) -> DraftNode:
    node = DraftNode(4, 0)
    node.asked = set(asked)
    return node


def test_until_all_sources_were_asked_only_the_sure_goes_out():
    place = tip(Source.COPY)
    sure = behind(place, SURE_CHANCE, Source.COPY)
    doubtful = behind(place, SURE_CHANCE - 0.01, Source.COPY)
    assert list(settled([doubtful, sure], BOTH)) == [sure]
    place.asked.add(Source.MODEL)
    assert list(settled([doubtful, sure], BOTH)) == [doubtful, sure]


def test_a_guess_of_free_sources_alone_must_not_be_unlikely():
    place = tip(*BOTH)
    alone = behind(place, ALONE_CHANCE, Source.COPY)
    unlikely = behind(place, ALONE_CHANCE - 0.01, Source.COPY)
    of_both = behind(place, 0.01, Source.COPY, Source.MODEL)
    assert list(settled([alone, unlikely, of_both], BOTH)) == [alone, of_both]
    assert list(settled([unlikely], (Source.COPY,))) == [unlikely], "none could know better"


def test_what_follows_a_guess_that_waits_waits_too():
    first = behind(tip(Source.COPY), 0.5, Source.COPY)
    second = behind(first, 1.0, Source.MODEL)
    third = behind(second, 1.0, Source.MODEL)
    assert list(settled([first, second, third], BOTH)) == []
