"""What a decided place teaches."""

from dataclasses import replace

import pytest
import torch

from helpers.decoder_bench import STREAM, VOCABULARY, answer, copies, decoder_for, guesses
from swarm.decoding.calibration import LAGS, Calibration
from swarm.decoding.confidence import Confidence, Guess
from swarm.decoding.counts import Counts
from swarm.decoding.draft_tree import DraftNode, Vote
from swarm.decoding.drafting.correction import Correction
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.learning import learn

BOTH = (Source.COPY, Source.MODEL)
WIDE = replace(STREAM, leaves=3)


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


def test_what_a_model_guessed_is_corrected_by_what_is_decided_and_copies_are_not():
    decoder = decoder_for([1], WIDE, max_new_tokens=20, sources=BOTH)
    decoder.correction = correction = Correction(VOCABULARY)
    window = decoder.next_window()
    decoder.propose(decoder.ask(), [copies(4)])
    decoder.propose(decoder.ask(), [[]])
    ask = decoder.ask()
    drawn = [replace(each, logits=torch.zeros(VOCABULARY)) for each in guesses([3], 5)]
    decoder.propose(ask, [drawn if path == () else [] for path in ask.paths])
    answer(decoder, window, 2)
    biases = correction.apply(torch.zeros(1, VOCABULARY), [1])[0]
    assert biases[2] > 0 > biases[5] > biases[3]
    assert biases[4] == 0


@pytest.mark.parametrize(
    ("guess", "judged"),
    [
        (Guess(Source.FEATURES, 0, 0.5, lag=1), 1),
        (Guess(Source.FEATURES, 1, 0.5, lag=1), 0),
        (Guess(Source.FEATURES, 0, 0.5, lag=LAGS + 1), 0),
        (Guess(Source.MODEL, 0, 0.5, lag=1), 0),
        (Guess(Source.COPY, 0, None, 5, lag=1), 0),
    ],
)
def test_a_head_is_calibrated_by_its_first_choices_alone(guess: Guess, judged: int):
    place = DraftNode(7, 3)
    child = DraftNode(8, 4, place)
    child.votes.append(Vote(guess, 0.5))
    place.children.append(child)
    calibration = Calibration()
    learn(place, 8, Confidence(), Counts(), calibration=calibration)
    assert calibration.judged[0] == calibration.kept[0] == judged
