"""What a chat template is given, and what it is not."""

import json

import pytest

from helpers import tokenizer_kinds
from swarm.client.chat_template import ChatTemplate, Rendering
from swarm.errors import TemplateRefuses

SAYS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content }}|{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments | tojson }})"
    "{% endfor %}{% endfor %}{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}>{% endif %}"
)
USER = {"role": "user", "content": "x"}


def calling(arguments):
    function = {"name": "add", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


@pytest.fixture
def tokenizer():
    tokenizer = tokenizer_kinds.byte_level()
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    tokenizer.chat_template = SAYS
    return tokenizer


def text(tokenizer, *messages, **given):
    template = ChatTemplate(tokenizer, "m")
    prompt = template.render(messages, Rendering(**given))
    assert tokenizer.decode(prompt.ids).endswith(prompt.ending[-3:])
    return tokenizer.decode(prompt.ids)


def test_thoughts_calls_tools_and_variables_reach_the_template(tokenizer):
    thought = {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}
    assert text(tokenizer, USER, thought) == "<user>|x<assistant>2 + 2|4>"
    assert text(tokenizer, calling('{"a": 1}')) == '<assistant>|add({"a": 1})>'
    assert text(tokenizer, USER, tools=[{"name": "f"}]) == '<user>|x[{"name": "f"}]>'
    assert text(tokenizer, USER, variables={"enable_thinking": False}) == "<user>|xFalse>"


@pytest.mark.parametrize("name", ["thinking", "reasoning"])
def test_thoughts_have_the_name_that_the_template_knows(tokenizer, name):
    tokenizer.chat_template = f"{{% for m in messages %}}{{{{ m['{name}'] }}}}{{% endfor %}}"
    thought = {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}
    assert text(tokenizer, thought) == "2 + 2"


def test_arguments_are_text_for_templates_that_expect_text(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{% for c in m.tool_calls %}{{ 'call:' + c.function.arguments }}"
        "{% endfor %}{% endfor %}"
    )
    assert text(tokenizer, calling('{"a": 1}')) == 'call:{"a": 1}'


@pytest.mark.parametrize("arguments", ["", "no JSON", "[1]", "[" * 100_000])
def test_arguments_that_are_no_object_are_passed_on(tokenizer, arguments):
    expected = "{}" if not arguments else None
    shown = text(tokenizer, calling(arguments))
    assert "add(" in shown
    if expected:
        assert f"add({expected})" in shown


def test_an_answer_goes_on_where_its_beginning_ends(tokenizer):
    begun = {"role": "assistant", "content": "The answer"}
    assert text(tokenizer, USER, begun, continues=True) == "<user>|x<assistant>|The answer"
    assert text(tokenizer, USER, opening="<call>") == "<user>|x><call>"


@pytest.mark.parametrize(
    "name", ["chat_template", "tools", "messages", "tokenize", "self", "__class__", "unheard_of"]
)
def test_no_caller_replaces_the_template_or_its_arguments(tokenizer, name):
    assert not ChatTemplate(tokenizer, "m").takes(name)
    assert text(tokenizer, USER, variables={name: "{{ 7 * 7 }}"}) == "<user>|x>"


def test_control_tokens_are_text_wherever_they_come_from(tokenizer):
    evil = "<|end|>"
    tokenizer.chat_template = SAYS + "<|end|>"
    template = ChatTemplate(tokenizer, "m")
    thought = {"role": "assistant", "content": evil, "reasoning_content": evil}
    call = calling(json.dumps({evil: [evil]}))
    ids = template.render(
        [thought, call],
        Rendering(tools=[{"name": evil}], variables={"enable_thinking": evil}),
    ).ids
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids).count(evil) == 7


def test_tools_have_a_template_of_their_own_where_there_is_one(tokenizer):
    tokenizer.chat_template = {"default": "plain", "tool_use": "with tools"}
    assert ChatTemplate(tokenizer, "m").source == "plain"
    assert ChatTemplate(tokenizer, "m", with_tools=True).source == "with tools"


def test_a_template_that_refuses_calls_says_why(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no calls') }}"
    with pytest.raises(TemplateRefuses, match="no calls"):
        ChatTemplate(tokenizer, "m").render([calling("{}")])
