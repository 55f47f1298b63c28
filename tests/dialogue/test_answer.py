"""Answers of every family, whole and in pieces."""

import json
import random
from itertools import pairwise

import pytest
from dialogue.transcripts import TOOLS, TRANSCRIPTS
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.dialogue.answer import AnswerForm, AnswerParser, answer_of, joined
from swarm.dialogue.events import CallArguments, CallBegun, Reasoning, Text
from swarm.dialogue.formats import FORMATS, THOUGHTS, thought_tags, tool_format
from swarm.dialogue.tools import Tools

PIECES = sorted(
    {
        *(marker for each in FORMATS for marker in (*each.signs, *each.markers)),
        *(tag for tags in THOUGHTS for tag in tags),
        *('{"name": "', "add", '", "arguments": ', '{"a": 1}', "}", "]", "[", ",", ":", '"', "\\"),
        *("<function=add>", "<parameter=a>", "</parameter>", "</function>", "```json\n", "\n", " "),
        *('<invoke name="add">', '<parameter name="a">', "</invoke>", "<arg_value>", "</arg_key>"),
        *("to=functions.add", "analysis", "final", "null", "1e999", "-", "\ud800", "日"),
    }
)


def form_of(template, tools=TOOLS):
    return AnswerForm(
        tool_format(template), thought_tags(template), Tools(tools) if tools else None
    )


def read(form, pieces, begun=False):
    """Return the events of an answer that comes in pieces, neighbours joined."""
    parser = AnswerParser(form, begun)
    events = [event for piece in pieces for event in parser.push(piece)]
    return joined([*events, *parser.end()])


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_an_answer_is_taken_apart(name):
    script = TRANSCRIPTS[name]
    events = answer_of(form_of(script.template), script.answer, script.begun)
    assert events == script.events


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_pieces_in_which_it_comes_do_not_matter(name):
    """It comes character by character, and in two pieces with every cut."""
    script = TRANSCRIPTS[name]
    form, text = form_of(script.template), script.answer
    assert read(form, text, script.begun) == script.events
    for cut in range(len(text)):
        assert read(form, (text[:cut], text[cut:]), script.begun) == script.events


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_complete_arguments_are_json(name):
    script = TRANSCRIPTS[name]
    if "cut" not in name:
        for event in answer_of(form_of(script.template), script.answer, script.begun):
            if isinstance(event, CallArguments):
                assert isinstance(json.loads(event.text), dict)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    tags=st.sampled_from([None, *THOUGHTS]),
    begun=st.booleans(),
)
def test_no_text_is_too_strange(form, pieces, cuts, tags, begun):
    """No text raises, whatever it is, and its cuts do not matter."""
    check(AnswerForm(form, tags, Tools(TOOLS)), "".join(pieces), cuts, begun)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_thousand_texts_of_its_own_pieces(form):
    """They are made of the markers of all families and of parts of calls, in any order."""
    drawn = random.Random(form.name)
    for _ in range(1000):
        text = "".join(drawn.choices(PIECES, k=drawn.randrange(1, 14)))
        cuts = [drawn.randrange(len(text) + 1) for _ in range(2)]
        tags = drawn.choice([None, *THOUGHTS])
        check(AnswerForm(form, tags, Tools(TOOLS)), text, cuts, drawn.random() < 0.3)


def check(answer, text, cuts, begun):
    """Check that an answer is read, and alike however it is cut."""
    whole = answer_of(answer, text, begun)
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[start:end] for start, end in pairwise(at)]
    assert read(answer, parts, begun) == whole
    assert read(answer, text, begun) == whole
    # nothing is made up, and every piece of arguments belongs to a call
    told = sum(len(event.text) for event in whole if isinstance(event, Text | Reasoning))
    assert told <= len(text)
    if whole and isinstance(whole[0], CallArguments):
        raise AssertionError("arguments of no call")


def test_without_tools_calls_are_text_and_thoughts_are_not():
    script = TRANSCRIPTS["qwen3, thoughts and a call"]
    events = answer_of(form_of(script.template, tools=None), script.answer)
    assert events[0] == Reasoning("Two numbers.")
    assert [type(event) for event in events[1:]] == [Text]
    assert script.answer.endswith(events[1].text)


def test_a_plain_answer_is_passed_on_as_it_comes():
    parser = AnswerParser(AnswerForm())
    assert parser.push(" <think> \n") == [Text(" <think> \n")]
    assert parser.end() == []


def test_arguments_come_as_they_are_written():
    parser = AnswerParser(form_of("<tool_call>"))
    assert parser.push('<tool_call>{"name": "add", "arguments": {"a"') == [
        CallBegun("add"),
        CallArguments('{"a"'),
    ]
    assert parser.push(": 1") == [CallArguments(": 1")]


def test_what_is_held_back_is_bounded():
    """Only what may become a marker waits, however long an answer is."""
    for template in ("<tool_call>", "[TOOL_CALLS]", "<|channel|>", "<|python_tag|>"):
        parser = AnswerParser(form_of(template))
        told = sum(len(event.text) for _ in range(2000) for event in parser.push("x < y [ z "))
        assert told >= 2000 * 10 - 40


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<|im_start|>' }}<tool_call>{\"name\"", "hermes"),
        ("<tool_call>\n<function=example>", "qwen_xml"),
        ("<tool_call>{name}<arg_key>", "glm"),
        ("<|tool_call|> <tool_call>", "granite"),
        ("[TOOL_CALLS]", "mistral"),
        ('{"name": "f", "parameters": {}}', "llama"),
        ("nothing of the kind", "hermes"),
    ],
)
def test_a_template_shows_its_family(template, name):
    assert tool_format(template).name == name


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("1", {"type": "integer"}, 1),
        ("1", {"type": "number"}, 1),
        ("1", {"type": "string"}, "1"),
        ("one", {"type": "integer"}, "one"),
        ("True", {"type": "boolean"}, True),
        ("null", {"type": ["string", "null"]}, None),
        ("[1]", {"oneOf": [{"type": "array"}, {"type": "string"}]}, [1]),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("2", {}, 2),
        ("1e999", {"type": "number"}, "1e999"),
        ("[" * 100_000, {"type": "array"}, "[" * 100_000),
    ],
)
def test_arguments_have_the_type_of_their_schema(text, schema, value):
    function = {"name": "f", "parameters": {"properties": {"x": schema}}}
    assert Tools([{"type": "function", "function": function}]).typed("f", "x", text) == value
