"""Strict functions and formats of answers constrain their part of an answer, in every family."""

import json

import pytest
from dialogue.transcripts import TOOLS, TRANSCRIPTS

from swarm.client.grammar import Grammars
from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline
from swarm.demo.tokenizer import train_tokenizer
from swarm.dialogue.answer import AnswerForm
from swarm.dialogue.formats import BY_NAME, FORMATS, thought_tags, tool_format
from swarm.dialogue.outlines import outline_of
from swarm.dialogue.tools import Tools
from swarm.gateway.strict_calls import strict_calls

CALLED = (
    *("hermes", "hermes, two calls", "qwen3, thoughts and a call"),
    *("mistral, names and arguments", "deepseek v3", "deepseek v3.1", "kimi", "granite"),
    *("harmony", "harmony, the recipient before the channel"),
)
FUNCTIONS = [tool["function"] for tool in TOOLS]
STRICT = frozenset(("add", "now"))
ANSWER = Constraint("regex", r"It is [0-9]\.")


def form_of(script, tools=TOOLS):
    sign = "[ARGS]" if "[ARGS]" in script.answer else ""
    return AnswerForm(
        tool_format(sign + script.template),
        thought_tags(script.template),
        Tools(tools) if tools else None,
    )


@pytest.fixture(scope="module")
def read():
    """Return whether an answer may be written as it is, and how often few tokens were allowed."""
    made = {}

    def read(outline, form, text):
        if form not in made:
            tokenizer = train_tokenizer(texts=100)
            tokenizer.add_tokens(list(form.markers), special_tokens=True)
            made[form] = tokenizer, Grammars(tokenizer, len(tokenizer))
        tokenizer, grammars = made[form]
        # its own end is a marker of harmony's
        mask = grammars.mask(outline, frozenset({tokenizer.pad_token_id}))
        ids = tokenizer(text, add_special_tokens=False).input_ids
        bound = 0
        for at, token in enumerate(ids):
            banned = mask.banned(ids[:at])
            if banned is not None and banned[token]:
                return False, bound
            bound += banned is not None and int(banned.sum()) > len(banned) // 2
        return True, bound

    return read


@pytest.mark.parametrize("name", CALLED)
def test_calls_of_strict_functions_are_as_their_schemas_say(read, name):
    script = TRANSCRIPTS[name]
    form = form_of(script)
    ending = form.tags[0] if script.begun else ""
    outline = outline_of(None, form, ending, strict_calls(FUNCTIONS, STRICT, form.format))
    allowed, bound = read(outline, form, script.answer)
    assert allowed
    assert bound > len(script.answer) / 100
    other = json.loads(json.dumps(FUNCTIONS).replace("integer", "string"))
    other[1]["parameters"] |= {"properties": {"x": {"type": "null"}}, "required": ["x"]}
    outline = outline_of(None, form, ending, strict_calls(other, STRICT, form.format))
    assert not read(outline, form, script.answer)[0]
    if form.format.object_key:
        outline = outline_of(None, form, ending, strict_calls(FUNCTIONS[:1], STRICT, form.format))
        assert read(outline, form, script.answer)[0] == ("now" not in script.answer)


def test_functions_that_are_not_strict_take_any_object(read):
    script = TRANSCRIPTS["hermes, two calls"]
    other = json.loads(json.dumps(FUNCTIONS).replace("integer", "string"))
    form = form_of(script)
    strict = strict_calls(other, frozenset({"now"}), form.format)
    assert read(outline_of(None, form, "", strict), form, script.answer)[0]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_only_where_arguments_are_json_they_are_constrained(form):
    written_as_tags = form.name in ("deepseek_tags", "minimax", "glm", "qwen_xml")
    assert bool(strict_calls(FUNCTIONS, STRICT, form)) == (
        not written_as_tags and form.name != "llama"
    )
    assert strict_calls(FUNCTIONS, frozenset(), form) == ()
    assert form.begins or form.has_channels


def test_an_answer_is_constrained_behind_its_thoughts(read):
    script = TRANSCRIPTS["qwen3, opened by the prompt"]
    form = form_of(script, tools=None)
    opened = outline_of(ANSWER, form, "<assistant>\n<think>\n")
    assert read(opened, form, script.answer) == (True, pytest.approx(10, abs=8))
    assert not read(opened, form, script.answer.replace("3.", "three."))[0]
    free = outline_of(ANSWER, form, "<assistant>\n")
    assert read(free, form, f"<think>{script.answer}")[0]
    assert read(free, form, "It is 3.")[0]
    assert not read(free, form, "Hm.")[0]
    assert outline_of(ANSWER, form, "<think>\n\n</think>\n\n") == ANSWER
    assert outline_of(None, form, "<think>\n") is None


def test_with_tools_a_call_may_stand_in_place_of_the_answer(read):
    script = TRANSCRIPTS["hermes"]
    form = form_of(script)
    call = script.answer.removeprefix("I add.\n")
    outline = outline_of(ANSWER, form, "")
    assert outline == Outline(ANSWER, calls="<tool_call>")
    assert read(outline, form, call)[0]
    assert read(outline, form, "It is 3.")[0]
    assert not read(outline, form, script.answer)[0]
    strict = strict_calls(FUNCTIONS, STRICT, form.format)
    assert read(outline_of(ANSWER, form, "", strict), form, call)[0]


def test_in_channels_only_the_final_one_is_the_answer(read):
    script = TRANSCRIPTS["harmony, the final channel"]
    form = form_of(script, tools=None)
    outline = outline_of(ANSWER, form, "<|start|>assistant")
    said = script.answer.removesuffix("<|return|>")
    assert read(outline, form, said)[0]
    assert not read(outline, form, said.replace("3.", "three."))[0]
    assert not read(outline, form, "<|channel|>analysis<|message|>Two.<|end|>")[1]
    assert not read(outline, form, "<|channel|>analysis<|message|>Two.<|pad|>")[0]
    calling = form_of(TRANSCRIPTS["harmony"])
    outline = outline_of(ANSWER, calling, "<|start|>assistant")
    assert read(outline, calling, TRANSCRIPTS["harmony"].answer)[0]


def test_a_parser_that_was_chosen_decides():
    newer = strict_calls(FUNCTIONS, frozenset({"add"}), BY_NAME["mistral_args"])
    older = strict_calls(FUNCTIONS, frozenset({"add"}), BY_NAME["mistral"])
    assert [trigger.marker for trigger in newer] == ["[ARGS]"]
    assert json.loads(older[0].constraint.text)["type"] == "array"
