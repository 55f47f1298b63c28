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


def test_what_a_model_guessed_is_corrected_by_what_is_decided_and_copies_are_not():
    sources = (Source.COPY, Source.MODEL)
    wide = replace(STREAM, leaves=3)
    decoder = decoder_for([1], wide, max_new_tokens=20, sources=sources)
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
