"""Pieces of text add up to the whole text, and no piece holds half a character."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from swarm.demo.tokenizer import train_tokenizer
from swarm.text import CONTEXT, StopStrings, TextStream

TEXT = "Mia has 12 eggs — naïve, 日本語, 🥚🏳️‍🌈!\n#### 12"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=100)


@pytest.fixture(scope="module")
def words():
    """A tokenizer whose spelling depends on what comes before: the first word of a text has no space."""
    backend = Tokenizer(models.WordLevel({"<e>": 0, "▁one": 1, "▁two": 2, "s": 3}, unk_token="<e>"))
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def stream(tokenizer, ids, context=()):
    texts = TextStream(tokenizer, context)
    return [texts.push(token) for token in ids]


def test_pieces_add_up(tokenizer):
    assert "".join(stream(tokenizer, ids_of(tokenizer, TEXT))) == TEXT


@settings(deadline=None)
@given(st.text().filter(lambda text: "<|" not in text and "\ufffd" not in text), st.text(max_size=9))
def test_pieces_add_up_whatever_the_text_and_the_context(tokenizer, text, context):
    pieces = stream(tokenizer, ids_of(tokenizer, text), ids_of(tokenizer, context))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_a_character_appears_when_it_is_whole(tokenizer):
    ids = ids_of(tokenizer, "日")
    assert len(ids) == 3
    assert stream(tokenizer, ids) == ["", "", "日"]


def test_a_character_that_is_never_finished_never_appears(tokenizer):
    half = ids_of(tokenizer, "日")[:2]
    assert stream(tokenizer, [*ids_of(tokenizer, "a"), *half]) == ["a", "", ""]


def test_broken_bytes_appear_as_such_once_something_follows(tokenizer):
    half, a = ids_of(tokenizer, "日")[:2], ids_of(tokenizer, "a")
    assert stream(tokenizer, [*half, *a, *a]) == ["", "", "\ufffda", "a"]


def test_a_token_costs_the_same_however_long_the_text_is(tokenizer):
    class Recorder:
        def decode(self, ids, **settings):
            lengths.append(len(ids))
            return tokenizer.decode(ids, **settings)

    lengths = []
    stream(Recorder(), ids_of(tokenizer, "Mia has 12 eggs. " * 20), ids_of(tokenizer, "Problem: " * 20))
    assert max(lengths) == CONTEXT + 1


def test_the_context_is_not_repeated(tokenizer):
    context = ids_of(tokenizer, "Problem: " * 20 + TEXT)
    assert "".join(stream(tokenizer, ids_of(tokenizer, " so 3."), context)) == " so 3."


@pytest.mark.parametrize("given_bytes", [1, 2])
def test_a_context_that_ends_within_a_character_is_not_repeated_either(tokenizer, given_bytes):
    ids = ids_of(tokenizer, "日 then")
    context = [*ids_of(tokenizer, "Problem: a long prompt"), *ids[:given_bytes]]
    assert "".join(stream(tokenizer, ids[given_bytes:], context)) == " then"


def test_special_tokens_have_no_text(tokenizer):
    a = ids_of(tokenizer, "a")
    assert stream(tokenizer, [*a, tokenizer.eos_token_id, *a], [tokenizer.bos_token_id]) == ["a", "", "a"]


def test_a_word_after_a_context_keeps_its_space(words):
    assert stream(words, [2, 3, 1]) == ["two", "s", " one"]
    assert stream(words, [2, 3, 1], context=[1]) == [" two", "s", " one"]


def test_spaces_are_kept_through_a_long_text(words):
    assert "".join(stream(words, [1, 2] * 30, context=[2] * 30)) == " one two" * 30


def cut(text, places):
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(
    st.text("ab#", max_size=30),
    st.lists(st.text("ab#", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 100), max_size=8),
)
def test_a_text_ends_before_the_first_stop_string_however_it_is_cut(text, stops, places):
    watched = StopStrings(stops)
    shown = ""
    for piece in cut(text, places):
        shown += watched.push(piece)
        assert text.startswith(shown)
    # The first to be complete ends the text, and of those complete with the same character the one that began first.
    complete = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=None)
    assert watched.found == (complete is not None)
    if complete is None:
        assert shown + watched.flush() == text
    else:
        begun = min(complete - len(stop) for stop in stops if text[:complete].endswith(stop))
        assert shown == text[:begun]


def test_what_cannot_become_a_stop_string_is_shown_at_once():
    watched = StopStrings(["####"])
    assert [watched.push(piece) for piece in ("a#", "#b", "##", "##c", "d")] == ["a", "##b", "", "", ""]
    assert watched.found
