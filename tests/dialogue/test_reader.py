"""What is read of a text does not depend on where it is cut."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from swarm.dialogue.reader import Reader

Parser = Callable[[Reader], Generator[Any, None, Any]]
SPACE = " \t\r\n"


def read(parser: Parser, *pieces: str, end: bool = True) -> tuple[list[Any], Any, str, int]:
    """Feed pieces as the parser asks for text.

    Return what it yielded, what it returned, what is left, and how many pieces it took.
    """
    reader, events, left = Reader(), [], list(pieces)
    parsing = parser(reader)
    try:
        while True:
            event = next(parsing)
            if event is not None:
                events.append(event)
            elif left:
                reader.feed(left.pop(0))
            else:
                assert end, "it waits for text that it does not need"
                reader.end()
    except StopIteration as stop:
        return events, stop.value, reader._take(1 << 20) + "".join(left), len(pieces) - len(left)


def cuts(text: str) -> Iterator[tuple[str, ...]]:
    """Cut a text nowhere, once at each place, and everywhere."""
    yield (text,)
    for at in range(1, len(text)):
        yield text[:at], text[at:]
    yield tuple(text)


def of_any_cut(parser: Parser, text: str) -> tuple[str, Any, str]:
    """Return what it yielded, joined, what it returned and what is left: the same for all cuts."""
    found = {("".join(events), value, left) for events, value, left, _ in every(parser, text)}
    assert len(found) == 1, found
    return found.pop()


def every(parser: Parser, text: str) -> Iterator[tuple[list[Any], Any, str, int]]:
    return (read(parser, *pieces) for pieces in cuts(text))


@pytest.mark.parametrize(
    ("text", "before", "marker", "left"),
    [
        ("ab<x>cd", "ab", "<x>", "cd"),
        ("<x>cd", "", "<x>", "cd"),
        ("a<<x>", "a<", "<x>", ""),
        ("a<x<y>b<x>", "a<x", "<y>", "b<x>"),
        ("ab<x", "ab<x", "", ""),
        ("", "", "", ""),
    ],
)
def test_a_text_is_read_up_to_the_first_marker(
    text: str, before: str, marker: str, left: str
) -> None:
    markers = ("<x>", "<y>")
    assert of_any_cut(lambda reader: reader.until(markers, str), text) == (before, marker, left)
    assert of_any_cut(lambda reader: reader.before(markers), text) == ("", (before, marker), left)


def test_only_what_may_become_a_marker_is_held_back() -> None:
    reader = Reader()
    reading = reader.until(("<think>", "</s>"), str)
    reader.feed("one <t")
    assert [next(reading), next(reading)] == ["one ", None]
    reader.feed("wo <thi")
    assert [next(reading), next(reading)] == ["<two ", None]
    reader.feed("nk>")
    with pytest.raises(StopIteration, match="<think>"):
        next(reading)


@pytest.mark.parametrize(
    ("text", "accepted", "left"),
    [("abcd", True, "d"), ("abc", True, ""), ("abx", False, "abx"), ("ab", False, "ab")],
)
def test_a_text_is_accepted_whole_or_left(text: str, accepted: bool, left: str) -> None:
    assert of_any_cut(lambda reader: reader.accept("abc"), text) == ("", accepted, left)


def test_what_cannot_be_the_text_is_told_at_once() -> None:
    assert read(lambda reader: reader.accept("abc"), "ax", end=False)[1:3] == (False, "ax")


@pytest.mark.parametrize(("text", "next_one"), [("xy", "x"), ("", "")])
def test_a_peek_takes_nothing(text: str, next_one: str) -> None:
    assert of_any_cut(lambda reader: reader.peek(), text) == ("", next_one, text)


@pytest.mark.parametrize(("text", "skipped", "left"), [(f"{SPACE}x ", SPACE, "x "), (" ", " ", "")])
def test_white_space_is_skipped_up_to_its_end(text: str, skipped: str, left: str) -> None:
    assert of_any_cut(lambda reader: reader.skip(), text) == ("", skipped, left)


def test_text_that_was_put_back_comes_next() -> None:
    reader = Reader()
    reader.feed("cd")
    reader.back("ab")
    assert read(lambda _: reader.accept("abcd"))[1] is True


@pytest.mark.parametrize(
    ("text", "value", "complete", "left"),
    [
        ('{"a": [1, "}"]} x', '{"a": [1, "}"]}', True, " x"),
        ("[[], {}]]", "[[], {}]", True, "]"),
        ('"a\\"]" x', '"a\\"]"', True, " x"),
        ('"\\\\"x', '"\\\\"', True, "x"),
        ("12.5,", "12.5", True, ","),
        ("true}", "true", True, "}"),
        ("null<|end|>", "null", True, "<|end|>"),
        ("12", "12", True, ""),  # a number may end with the text
        ('{"a": 1', '{"a": 1', False, ""),
        ('"abc', '"abc', False, ""),
        ("", "", False, ""),
        ("]x", "", True, "]x"),  # no value at all
        (" 1", "", True, " 1"),
    ],
)
def test_a_value_ends_where_its_brackets_and_quotes_do(
    text: str, value: str, complete: bool, left: str
) -> None:
    assert of_any_cut(lambda reader: reader.value(str), text) == (value, complete, left)


def test_a_value_comes_piece_by_piece() -> None:
    pieces = ('{"a": "x', 'y"', "}z")
    events, complete, left, taken = read(lambda reader: reader.value(str), *pieces, end=False)
    assert (events, complete, left, taken) == (['{"a": "x', 'y"', "}"], True, "z", 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": [1, null]}', {"a": [1, None]}), ('"a\nb"', "a\nb"), ("-1.5", -1.5)],
)
def test_json_is_read(text: str, value: object) -> None:
    for pieces in cuts(text):
        assert read(lambda reader: reader.json(), *pieces)[1] == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1', "ends in a value"),
        ("{1}", "double quotes"),
        ("[" * 100_000 + "]" * 100_000, "too deeply|recursion"),
    ],
    ids=["cut off", "broken", "deep"],
)
def test_broken_json_is_a_value_error(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(lambda reader: reader.json(), text)


def test_what_was_read_since_a_mark_is_told_once() -> None:
    reader = Reader()
    reader.feed("a b<x>c")
    list(reader.until((" ",), str))
    assert reader.since_mark() == "", "nothing is marked"
    reader.mark()
    list(reader.until(("<x>",), str))
    assert reader.since_mark() == "b<x>"
    assert reader.since_mark() == ""
