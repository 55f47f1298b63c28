"""What a decided place teaches."""

from dataclasses import replace

import torch

from helpers.decoder_bench import STREAM, VOCABULARY, answer, copies, decoder_for, guesses
from swarm.decoding.drafting.correction import Correction
from swarm.decoding.drafting.drafter import Source


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
