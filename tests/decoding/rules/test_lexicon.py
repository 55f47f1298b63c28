"""Which tokens are key: by their text, and where that decides by the text before them."""

import re

import pytest

from swarm.decoding.rules.lexicon import Fences, Lexicon, kind_of


class Words:
    """A vocabulary that grows with the words that a test uses; counts what is decoded."""

    def __init__(self):
        self.words = []
        self.calls = []

    def ids(self, *words):
        self.words += [word for word in words if word not in self.words]
        return [self.words.index(word) for word in words]

    def decode(self, ids):
        self.calls.append(list(ids))
        return "".join(self.words[i] for i in ids)


@pytest.fixture
def words():
    return Words()


def key(words, *pieces, **settings):
    """The class of the last piece behind all others."""
    *history, token = words.ids(*pieces)
    return Lexicon(words.decode, **settings).key(token, history)


@pytest.mark.parametrize(
    ("kind", "texts"),
    {
        "number": ["7", " 42", "3.5", "½", "٣", "x2", " twelve", " Half", "twenty"],
        "operator": ["+", " -", "=", "**", "<", "%", " ÷", "€", "$", "####", "≤"],
        "negation": [" not", "No", " never", " don't", "n't", " isn\u2019t", " without"],
        "identifier": ["my_var", "_", "camelCase", "os.path", "print(", "::"],
        "quote": ['"', " '", "`", "\u201c", "\u00bb"],
        "structure": ["(", " ]", "{", "\n", "    ", ".\n", "\ufffd", ""],
        "": [" so", " Then", ",", ".", " which", "ing", "!", " "],
    }.items(),
    ids=str,
)
def test_texts_have_classes(kind, texts):
    assert {text: kind_of(text) for text in texts} == dict.fromkeys(texts, kind)


def test_stop_tokens_and_special_tokens_are_key_whatever_their_text(words):
    end, special, word = words.ids("</s>", "<pad>", " so")
    lexicon = Lexicon(words.decode, frozenset({end}), frozenset({special}))
    assert [lexicon.key(token, []) for token in (end, special, word)] == ["stop", "structure", ""]


@pytest.mark.parametrize("before", ["", "It ends.", "Really?", "Note:", "He left!) ", "A line\n"])
def test_a_capital_begins_a_sentence(before, words):
    assert key(words, before, " Then") == ""


@pytest.mark.parametrize("before", [" and", " to", ",", " she"])
def test_a_capital_elsewhere_is_a_name(before, words):
    assert key(words, before, " Then") == "name"


def test_what_continues_a_word_is_part_of_it(words):
    assert key(words, " stam", "ps") == "part of a word"
    assert key(words, " stam", " ps") == ""
    assert key(words, "7", "ps") == ""


def test_a_vocabulary_whose_lone_words_lose_their_blank_is_understood():
    pieces = ["▁a", "▁word", "ing"]

    def decode(ids):
        return "".join(pieces[i] for i in ids).replace("▁", " ").removeprefix(" ")

    lexicon = Lexicon(decode)
    assert decode([1]) == "word"
    assert lexicon.key(1, [0]) == ""
    assert lexicon.key(2, [0, 1]) == "part of a word"


def test_users_add_classes_of_their_own(words):
    patterns = {"metal": re.compile(r"\b(iron|zinc)\b")}
    assert key(words, " of", " zinc", patterns=patterns) == "metal"
    assert key(words, " of", " wood", patterns=patterns) == ""


def test_a_class_can_be_switched_off(words):
    assert key(words, " and", " Tom", without=frozenset({"name"})) == ""
    assert key(words, " and", "7", without=frozenset({"name"})) == "number"


def test_a_token_is_classified_once(words):
    seven, so = words.ids("7", " so")
    lexicon = Lexicon(words.decode)
    for _ in range(3):
        assert lexicon.key(seven, [so]) == "number"
    assert words.calls == [[seven]]


def test_code_stands_between_fences(words):
    text = words.ids(
        "See", ":\n", "```", "python", "\n", "x", "\n", "``", "`", "\n", "Done", " ", "`", "``", "y"
    )
    fences = Fences(words.decode)
    inside = [fences.inside(text[: i + 1]) for i in range(len(text))]
    assert inside == [False] * 2 + [True] * 6 + [False] * 5 + [True] * 2


def test_fences_may_be_read_in_any_steps(words):
    text = words.ids("```", "x", "``", "`", "a", "```", "z")
    for step in range(1, len(text) + 1):
        fences = Fences(words.decode)
        for end in range(step, len(text), step):
            fences.inside(text[:end])
        assert fences.inside(text)
