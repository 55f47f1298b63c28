"""Pieces of text add up to the whole text, and no piece holds half a character."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tokenizer_kinds
from swarm.client.detokenizer import CONTEXT, REPLACEMENT, Detokenizer, StopStrings

TEXT = "Mia has 12 eggs — naïve, 日本語, 🥚🏳️‍🌈!\n#### 12"
BYTE = re.compile("<0x(..)>")


@pytest.fixture(scope="module")
def made():
    return {name: make() for name, make in tokenizer_kinds.KINDS.items()}


@pytest.fixture(scope="module")
def tokenizer(made):
    return made["byte_level"]


@pytest.fixture(scope="module")
def words(made):
    return made["words"]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def stream(tokenizer, ids, context=()):
    texts = Detokenizer(tokenizer, context)
    return [texts.push(token) for token in ids]


def whole(tokenizer, ids, context=()):
    texts = Detokenizer(tokenizer, context)
    return "".join([*(texts.push(token) for token in ids), texts.flush()])


def decoded(tokenizer, ids):
    """What the tokenizer makes of all ids at once.

    Of single bytes, it is given those that make up characters, and for every other one a mark: it
    would make marks of all neighbours of that.
    """
    tokens = tokenizer.convert_ids_to_tokens(ids)
    skipped = {*tokenizer.all_special_tokens, None}
    runs = itertools.groupby((each for each in tokens if each not in skipped), _is_byte)
    read = itertools.chain.from_iterable(
        _mended(run) if single else list(run) for single, run in runs
    )
    ids = tokenizer.convert_tokens_to_ids(list(read))
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _is_byte(token):
    return bool(BYTE.fullmatch(token))


def _mended(run):
    text = bytes(int(BYTE.fullmatch(token)[1], 16) for token in run).decode(
        errors="surrogateescape"
    )
    for char in text:
        if "\udc80" <= char <= "\udcff":
            yield REPLACEMENT
        else:
            yield from (f"<0x{byte:02X}>" for byte in char.encode())


def test_pieces_add_up(tokenizer):
    assert "".join(stream(tokenizer, ids_of(tokenizer, TEXT))) == TEXT


@settings(deadline=None)
@given(
    st.text().filter(lambda text: "<|" not in text and "\ufffd" not in text), st.text(max_size=9)
)
def test_pieces_add_up_whatever_the_text_and_the_context(tokenizer, text, context):
    pieces = stream(tokenizer, ids_of(tokenizer, text), ids_of(tokenizer, context))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_a_character_appears_when_it_is_whole(tokenizer):
    ids = ids_of(tokenizer, "日")
    assert len(ids) == 3
    assert stream(tokenizer, ids) == ["", "", "日"]


def test_a_character_that_is_never_finished_is_a_mark_in_the_end(tokenizer):
    half = ids_of(tokenizer, "日")[:2]
    texts = Detokenizer(tokenizer)
    assert [texts.push(token) for token in [*ids_of(tokenizer, "a"), *half]] == ["a", "", ""]
    assert [texts.flush(), texts.flush()] == [REPLACEMENT, ""]


def test_a_character_that_is_cut_takes_no_neighbour_with_it(made):
    """Neither the space that shares a token with its first bytes, nor the characters before it."""
    for name in ("byte_level", "byte_fallback", "byte_fallback_as_it_is"):
        ids = ids_of(made[name], "hi 🥚🥚")
        pieces = stream(made[name], ids[:-1])
        assert "".join(pieces) == "hi 🥚"
        assert whole(made[name], ids[:-1]).rstrip(REPLACEMENT) == "hi 🥚"
        assert whole(made[name], ids) == "hi 🥚🥚"


@pytest.mark.parametrize("name", tokenizer_kinds.KINDS)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_whatever_the_ids_pieces_add_up_to_what_the_tokenizer_makes_of_them(name, data, made):
    """Of any tokens, also of those that are in no vocabulary, and behind any context."""
    tokenizer = made[name]
    tokens = st.integers(0, len(tokenizer) + 2)
    if name.startswith("byte_fallback"):
        tokens |= st.sampled_from(
            tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(0x80, 256)])
        )
        tokens |= st.sampled_from(ids_of(tokenizer, "a b 🥚"))
    ids = data.draw(
        st.lists(tokens, max_size=3 * CONTEXT) | st.text().map(lambda text: ids_of(tokenizer, text))
    )
    assert whole(tokenizer, ids) == decoded(tokenizer, ids)
    cut = data.draw(st.integers(0, len(ids)))
    context = decoded(tokenizer, ids[:cut])
    if not context.endswith(REPLACEMENT):  # else the text of its last character is nobody's
        assert context + whole(tokenizer, ids[cut:], ids[:cut]) == decoded(tokenizer, ids)


def test_spaces_are_not_cleaned_up_whatever_the_tokenizer_is_used_to(made):
    tokenizer = made["word_pieces"]
    ids = tokenizer.convert_tokens_to_ids(["s", "n", "'", "t"])
    assert tokenizer.decode(ids) == "sn't"  # as if no space had been there
    assert whole(tokenizer, ids) == "s n ' t"


def test_broken_bytes_appear_as_such_once_something_follows(tokenizer):
    half, a = ids_of(tokenizer, "日")[:2], ids_of(tokenizer, "a")
    assert stream(tokenizer, [*half, *a, *a]) == ["", "", "\ufffda", "a"]


def test_a_token_costs_the_same_however_long_the_text_is(tokenizer):
    class Recorder:
        def decode(self, ids, **settings):
            lengths.append(len(ids))
            return tokenizer.decode(ids, **settings)

    lengths = []
    stream(
        Recorder(), ids_of(tokenizer, "Mia has 12 eggs. " * 20), ids_of(tokenizer, "Problem: " * 20)
    )
    stream(Recorder(), ids_of(tokenizer, "日")[:2] * 20)  # no whole character in sight
    assert max(lengths) == CONTEXT + 1


def test_a_copy_goes_on_by_itself(made):
    for tokenizer in made.values():
        ids, other = ids_of(tokenizer, "naïve 日本 café"), ids_of(tokenizer, "日 end")
        for cut in range(len(ids) + 1):  # also within a character
            texts = Detokenizer(tokenizer)
            begun = "".join(map(texts.push, ids[:cut]))
            copied = texts.copy()
            rest = "".join(map(texts.push, ids[cut:])) + texts.flush()
            assert begun + rest == whole(tokenizer, ids)
            rest = "".join(map(copied.push, other)) + copied.flush()
            assert begun + rest == whole(tokenizer, ids[:cut] + other)


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
    assert stream(tokenizer, [*a, tokenizer.eos_token_id, *a], [tokenizer.bos_token_id]) == [
        "a",
        "",
        "a",
    ]


def test_a_word_after_a_context_keeps_its_space(words):
    assert stream(words, [2, 3, 1]) == ["two", "s", " one"]
    assert stream(words, [2, 3, 1], context=[1]) == [" two", "s", " one"]


def test_spaces_are_kept_through_a_long_text(words):
    assert "".join(stream(words, [1, 2] * 30, context=[2] * 30)) == " one two" * 30


def test_spaces_are_kept_behind_tokens_without_a_text(words):
    nothing = [words.eos_token_id] * 2 * CONTEXT
    assert "".join(stream(words, [1, *nothing, 2])) == "one two"
    assert "".join(stream(words, [2], context=[1, *nothing])) == " two"


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
    # The first to be complete ends the text, and of those complete with the same character the one
    # that began first.
    complete = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=None)
    assert watched.found == (complete is not None)
    if complete is None:
        assert shown + watched.flush() == text
    else:
        begun = min(complete - len(stop) for stop in stops if text[:complete].endswith(stop))
        assert shown == text[:begun]


def test_what_cannot_become_a_stop_string_is_shown_at_once():
    watched = StopStrings(["####"])
    assert [watched.push(piece) for piece in ("a#", "#b", "##", "##c", "d")] == [
        "a",
        "##b",
        "",
        "",
        "",
    ]
    assert watched.found


def test_a_special_token_is_spelled_if_its_marks_are_wanted(tokenizer):
    special = tokenizer.eos_token_id
    a, b = ids_of(tokenizer, "a"), ids_of(tokenizer, "b")
    half = ids_of(tokenizer, "日")[:2]
    texts = Detokenizer(tokenizer, (), {special})
    pieces = [texts.push(token) for token in [*a, special, *b, *half, special]]
    name = tokenizer.eos_token
    assert "".join(pieces).replace(" ", "") == f"a{name}b{REPLACEMENT}{name}"
    assert texts.flush() == ""
