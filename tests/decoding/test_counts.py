"""What is counted of a generation."""

from dataclasses import replace

from helpers.decoder_bench import STREAM, answer, copies, decoder_for, guesses
from swarm.decoding.acceptance import SourceAcceptance
from swarm.decoding.drafting.drafter import Source

BOTH = (Source.COPY, Source.MODEL)
WIDE = replace(STREAM, leaves=3)


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
