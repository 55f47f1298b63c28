"""Messages become prompts by the model's template."""

import pytest

from helpers.gateway_in_process import PROBLEM
from swarm.client.control_tokens import MAX_BREAKS
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
