"""Each check of an instruction tells a text that follows it from one that does not."""

import pytest

from swarm.eval.instructions import CHECKS, UNCHECKED, UnknownInstruction, check_of

FEW = {"relation": "less than"}
MANY = {"relation": "at least"}
THIRD = {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "But"}

# kind, arguments, texts that follow, texts that do not
CASES = [
    ("keywords:existence", {"keywords": ["rose", "red"]}, ["Roses, RED"], ["roses", "red"]),
    (
        "keywords:frequency",
        {"keyword": "ha ", "frequency": 2, **MANY},
        ["Ha ha", "haha!"],
        ["ha", ""],
    ),
    ("keywords:frequency", {"keyword": "ha", "frequency": 2, **FEW}, ["ha"], ["Ha ha"]),
    ("keywords:frequency", {"keyword": "a.b", "frequency": 1, **MANY}, ["A.B"], ["acb"]),
    ("keywords:forbidden_words", {"forbidden_words": ["can"]}, ["a canal"], ["Yes, we CAN."]),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 2, "let_relation": "at least"},
        ["Eel"],
        ["e"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": "less than"},
        ["# a"],
        ["## a"],
    ),
    ("length_constraints:number_words", {"num_words": 3, **MANY}, ["it's on"], ["well on"]),
    ("length_constraints:number_words", {"num_words": 3, **FEW}, ["on it"], ["on and on"]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "***one***two***"],
        ["one", "one***two***three", "one*** ***two"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        THIRD,
        ["one\n\n'but, then\n\nthree"],
        ["one\n\nbut then", "one\n\nbutter\n\nthree", "one\n\n\n\nbut\n\nthree"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] of [street]"],
        ["[name]", "[name\n]["],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye\np. s. more"],
        ["Bye. PS more"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["P.P.S more"],
        ["P.S. more"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "NB:"}, ["nb: more"], ["nbx more"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n  - two", "- one\n- two"],
        ["* one", "**one**\n* two", "* one\n* two\n* three"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one**, *two*"],
        ["*one*", "** ** and *one*", "*one\n*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "PART ", "num_sections": 2},
        ["PART 1\none\nPART 2\ntwo"],
        ["PART 1\none\nPART two"],
    ),
    ("detectable_format:title", {}, ["<<Roses>>\nare red"], ["<Roses>", "<<\n>>", "<<>>"]),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1]}', '```json\n{"a": 1}\n```'],
        ["{a: 1}", "Sure: {}", "[" * 100_000],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["Well. My answer is no."],
        ["My answer: no."],
    ),
    (
        "combination:two_responses",
        {},
        ["one\n******\ntwo", "one******two******"],
        ["one", "one****** one", "one******two******three", "one****** ******two"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Sing a song. "},
        [" sing a song. La."],
        ["La. Sing a song."],
    ),
    ("startend:end_checker", {"end_phrase": "Bye!"}, ['"Well, bye!" '], ["Bye! And so on"]),
    ("startend:quotation", {}, [' "quoted" '], ['"', '"open', "'single'"]),
    ("change_case:english_capital", {}, ["ROSES, 3"], ["ROSEs", "3"]),
    ("change_case:english_lowercase", {}, ["roses, 3"], ["Roses", "3"]),
    ("punctuation:no_comma", {}, ["Red; blue."], ["Red, blue."]),
]


@pytest.mark.parametrize(("kind", "arguments", "followed", "not_followed"), CASES)
def test_a_check_tells_texts_apart(kind, arguments, followed, not_followed):
    check = check_of(kind, arguments)
    assert [text for text in followed if not check(text)] == []
    assert [text for text in not_followed if check(text)] == []


def test_every_kind_is_tried_here():
    assert {kind for kind, *_ in CASES} == set(CHECKS)
    assert not set(CHECKS) & set(UNCHECKED)


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("keywords:rhymes", {}, "no check of the instruction 'keywords:rhymes'"),
        (7, {}, "no check of the instruction 7"),
        ("keywords:existence", {}, "takes keywords"),
        ("keywords:existence", {"keywords": ["a", 5]}, "cannot take that keywords"),
        ("keywords:existence", {"keywords": ["a" * 5000]}, "cannot take that keywords"),
        ("startend:quotation", {"mark": "'"}, "takes no arguments"),
        ("length_constraints:number_words", {"num_words": True, **MANY}, "that num_words"),
        ("length_constraints:number_words", {"num_words": 5, "relation": "about"}, "that relation"),
        ("punctuation:no_comma", [], "no arguments by name"),
    ],
)
def test_an_instruction_that_cannot_be_checked_is_a_sentence(kind, arguments, words):
    with pytest.raises(UnknownInstruction) as caught:
        check_of(kind, arguments)
    assert words in str(caught.value)
