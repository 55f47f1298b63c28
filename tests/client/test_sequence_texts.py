"""The text of a sequence is what its token ids say, wherever it ends."""

from types import SimpleNamespace

import pytest
import torch

from helpers import tokenizer_kinds
from helpers.sequence_bench import PROMPT, models
from swarm.client.models import make_lexicon
from swarm.client.sequence import TextSequence
from swarm.decoding.rules.lexicon import Lexicon
from swarm.outputs import Measured
from swarm.request import Request


def say(tokenizer, ids, vocabulary=None, **options):
    """The pieces of a turn in which the target says these ids, and its sum; it may be given up
    before its end."""
    lexicon = Lexicon(lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    spoken = models(eos={tokenizer.eos_token_id})
    spoken.tokenizer, spoken.lexicon = tokenizer, lexicon
    spoken.checkpoint.vocab_size = vocabulary or len(tokenizer)
    turn = TextSequence(
        spoken, PROMPT, Request.of({"max_new_tokens": len(ids), "window": 0, **options})
    )
    pieces = []
    for token in ids:
        window = turn.next_window()
        if window is None:
            break
        measured = Measured(50.0, (1.0,), (0.0,))
        taken = turn.take([window], measured)
        logits = torch.nn.functional.one_hot(
            torch.tensor([token]), spoken.checkpoint.vocab_size
        ).float()
        pieces += turn.judge([node for _, node in taken], logits, measured)
    turn.decoder.finish_reason = turn.decoder.finish_reason or "swarm_incomplete"
    return pieces, turn.sum_up()


@pytest.fixture(scope="module")
def spelled():
    return {name: make() for name, make in tokenizer_kinds.KINDS.items()}


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_a_text_that_ends_within_a_character_is_what_its_ids_say(name, spelled):
    tokenizer = spelled[name]
    ids = ids_of(tokenizer, "hi 🥚")[:-1]
    text = tokenizer.decode([*PROMPT, *ids])[len(tokenizer.decode(PROMPT)) :]
    # of length, and what may yet become a stop string is held, too
    for options in ({}, {"stop": ["##", "\ufffdx"]}):
        pieces, done = say(tokenizer, ids, **options)
        assert done.text == "".join(piece.text for piece in pieces) == text
        assert done.stats.finish_reason == "length"
    _, done = say(tokenizer, [*ids, tokenizer.eos_token_id], max_new_tokens=99)
    assert (done.text, done.stats.finish_reason) == (text, "stop")


def test_a_text_that_is_given_up_is_what_its_ids_say(spelled):
    tokenizer = spelled["byte_level"]
    ids = ids_of(tokenizer, "see #🥚")[:-1]
    pieces, done = say(tokenizer, ids, max_new_tokens=99, stop=["##"])
    assert "".join(piece.text for piece in pieces) == "see "  # the rest might yet have become more
    assert done.text == "".join(piece.text for piece in done.pieces) == tokenizer.decode(ids)


def test_a_stop_string_may_end_in_what_no_character_came_of(spelled):
    tokenizer = spelled["byte_level"]
    ids = ids_of(tokenizer, "see 🥚")[:-1]
    _, done = say(tokenizer, ids, stop=["e \ufffd"])
    assert done.text == "se"


def test_every_token_says_where_in_the_text_it_stands(spelled):
    """Also where its text comes later: a character of several tokens, and what might have become a
    stop string."""
    tokenizer = spelled["byte_level"]
    ids = ids_of(tokenizer, "a#b日 c")
    pieces, done = say(tokenizer, ids, stop=["#c"])
    assert [piece.text for piece in pieces] == ["a", "", "#b", "", "", "日", " c"]
    assert [piece.offset for piece in pieces] == [0, 1, 2, 3, 3, 3, 4]
    assert done.text == "a#b日 c"


def test_other_tokens_are_spelled_as_within_a_text(spelled):
    """Not as at its beginning, where a word has no space before it: words and parts of words would
    look alike."""
    tokenizer = spelled["byte_fallback"]
    checkpoint = SimpleNamespace(eos_token_ids=frozenset())
    lexicon = make_lexicon(checkpoint, tokenizer)
    the, space, byte = tokenizer.convert_tokens_to_ids(["▁the", "▁", "<0xE6>"])
    assert [lexicon.spell(token) for token in (the, space, byte)] == [" the", " ", "\ufffd"]
    assert lexicon.spell(tokenizer.eos_token_id) == "</s>"
    assert lexicon.spell(len(tokenizer)) == ""
    assert lexicon.key(space, [the]) == ""  # one space is no structure


def test_tokens_beyond_the_tokenizers_are_tokens_without_a_text(spelled):
    """Vocabularies are padded: the model has rows for more tokens than the tokenizer names."""
    tokenizer = spelled["byte_level"]
    a, beyond = ids_of(tokenizer, "a")[0], len(tokenizer) + 3
    pieces, done = say(
        tokenizer, [a, beyond, a], vocabulary=len(tokenizer) + 8, logprobs=3, verify="adaptive"
    )
    assert [piece.token_id for piece in pieces] == [a, beyond, a]
    assert [piece.text for piece in pieces] == ["a", "", "a"]
    assert pieces[1].likely[0].token_id == beyond
    assert done.text == "aa"
