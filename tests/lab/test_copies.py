"""Texts over a simulated chain take the time that the chain takes, and less with copies."""

import random

import pytest

from lab.copies import LINK_MS, PEERS, POSITION_MS, STAGE_MS, Text, write
from swarm.decoding.confidence import Confidence

LOOP_MS = (PEERS + 1) * LINK_MS + PEERS * (STAGE_MS + POSITION_MS)


def novel(tokens: int) -> Text:
    """A text in which nothing is said twice."""
    return Text("novel:0", list(range(20)), list(range(100, 100 + tokens)))


def quoting(tokens: int) -> Text:
    """A text that repeats its prompt."""
    drawn = random.Random(3)
    prompt = [drawn.randrange(1000) for _ in range(tokens)]
    return Text("quote:0", [*prompt, *prompt[:2]], prompt[2:])


def test_plain_decoding_takes_a_loop_a_token():
    written = write(novel(30), None)
    assert written.ms == pytest.approx(30 * LOOP_MS)
    assert written.sent == 30


def test_a_quote_is_many_times_as_fast():
    text = quoting(80)
    plain, copied = write(text, None), write(text, Confidence())
    assert copied.ms < plain.ms / 4
    assert copied.sent < 1.5 * len(text.new)


def test_a_text_in_which_nothing_matches_costs_nothing():
    text = novel(60)
    assert write(text, Confidence()) == write(text, None)
