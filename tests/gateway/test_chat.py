"""Messages become prompts by the model's template."""

import pytest

from helpers.gateway_in_process import PROBLEM
from swarm.client.control_tokens import MAX_BREAKS
from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline
from swarm.gateway.chat import Chat
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import ChatBody, ChatMessage


def said(*contents):
    return [
        ChatMessage(role=("user", "assistant")[at % 2], content=content)
        for at, content in enumerate(contents)
    ]


def chat_prompt(tokenizer, messages, **more):
    """Return the token ids of a chat's prompt."""
    return Chat.of(ChatBody(model="m", messages=messages, **more), tokenizer).prompt().ids


def test_a_question_becomes_what_the_model_was_trained_on(demo):
    tokenizer = demo.models.tokenizer
    prompt = tokenizer(PROBLEM.prompt).input_ids
    assert chat_prompt(tokenizer, said(PROBLEM.question)) == prompt
    assert chat_prompt(tokenizer, said(f"Problem: {PROBLEM.question}")) == prompt
    assert (
        chat_prompt(
            tokenizer, [ChatMessage(role="system", content="Be brief."), *said(PROBLEM.question)]
        )
        == prompt
    )


def test_the_demo_models_are_asked_the_last_question_alone(demo):
    tokenizer = demo.models.tokenizer
    assert (
        chat_prompt(tokenizer, said("And before?", "42", PROBLEM.question))
        == tokenizer(PROBLEM.prompt).input_ids
    )


def test_a_chat_without_a_question_is_refused(demo):
    with pytest.raises(BadRequest, match="chat template"):
        chat_prompt(demo.models.tokenizer, [ChatMessage(role="system", content="Be brief.")])


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('roles must alternate') }}", "{{ messages[0].content + 1 }}"]
)
def test_a_template_that_refuses_is_told_in_a_sentence(demo, template, monkeypatch):
    monkeypatch.setattr(demo.models.tokenizer, "chat_template", template)
    with pytest.raises(BadRequest) as told:
        chat_prompt(demo.models.tokenizer, said("x"))
    assert (told.value.param, told.value.status) == ("messages", 400)


def test_too_many_control_tokens_are_our_bound_and_not_the_templates(demo):
    tokenizer = demo.models.tokenizer
    with pytest.raises(BadRequest, match=f"more than {MAX_BREAKS} control tokens") as told:
        chat_prompt(tokenizer, said(tokenizer.eos_token * (MAX_BREAKS + 1)))
    assert told.value.param == "messages"
    assert "template" not in str(told.value)


THINKS = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>\n"
    "{% else %}<think>\n\n</think>\n\n{% endif %}{% if false %}<tool_call>{% endif %}"
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


def strict_tool(name):
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, "strict": True}}


@pytest.fixture
def thinking(demo, monkeypatch):
    monkeypatch.setattr(demo.models.tokenizer, "chat_template", THINKS)
    return demo.models.tokenizer


@pytest.mark.parametrize("thinks", [True, False])
def test_thoughts_that_the_template_opens_run_before_a_format(thinking, thinks):
    body = ChatBody(model="m", messages=said("x"), response_format=FORMAT, enable_thinking=thinks)
    chat = Chat.of(body, thinking)
    prompt = chat.prompt()
    assert prompt.ending.endswith("<think>\n" if thinks else "</think>\n\n")
    constraint = chat.constraint(prompt.ending)
    if thinks:
        assert constraint == Outline(body.constraint, ("<think>", "</think>"), begun=True)
    else:
        assert constraint == body.constraint


def test_calls_of_strict_functions_are_constrained_unless_one_is_forced(thinking):
    def chat(**more):
        fields = {"tools": [strict_tool("add"), strict_tool("now")], **more}
        return Chat.of(ChatBody(model="m", messages=said("x"), **fields), thinking)

    free = chat().constraint("<think>\n")
    assert [trigger.marker for trigger in free.triggers] == ["<tool_call>"]
    assert free.answer is None
    assert chat(tool_choice="none").constraint("") is None
    assert isinstance(chat(tool_choice="required").constraint(""), Constraint)
    assert chat(tool_choice="required").prompt().ending.endswith("</think>\n\n<tool_call>\n")
    (named,) = chat(functions=[{**strict_tool("add")["function"]}], tools=[]).strict
    assert '"add"' in named.constraint.text


def test_strict_functions_are_named_where_arguments_are_not_written_as_json(demo):
    tools = [{**strict_tool("add")}, {"type": "web_search"}, {**strict_tool("now")}]
    body = ChatBody(model="m", messages=said("x"), tools=tools)
    chat = Chat.of(body, demo.models.tokenizer, "qwen_xml")
    assert chat.constraint("") is None
    assert body.ignored == ("tools[1]", "tools[0].function.strict", "tools[2].function.strict")
