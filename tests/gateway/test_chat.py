"""Messages to prompts, by the template of the model."""

import pytest
from served import PROBLEM

from swarm.gateway.chat import chat_prompt
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import Message


def said(*contents):
    return [Message(role=("user", "assistant")[at % 2], content=content) for at, content in enumerate(contents)]


def test_a_question_becomes_what_the_model_was_trained_on(demo):
    tokenizer = demo.models.tokenizer
    prompt = tokenizer(PROBLEM.prompt).input_ids
    assert chat_prompt(tokenizer, said(PROBLEM.question)) == prompt
    assert chat_prompt(tokenizer, said(f"Problem: {PROBLEM.question}")) == prompt
    assert chat_prompt(tokenizer, [Message(role="system", content="Be brief."), *said(PROBLEM.question)]) == prompt


def test_the_next_turn_goes_on_from_the_tokens_of_the_one_before(demo):
    """Which is what lets peers keep what they have computed."""
    tokenizer = demo.models.tokenizer
    first = chat_prompt(tokenizer, said(PROBLEM.question))
    answer = tokenizer(f" {PROBLEM.solution}", add_special_tokens=False).input_ids
    second = chat_prompt(tokenizer, said(PROBLEM.question, f" {PROBLEM.solution}", "And then?"))
    assert second[: len(first) + len(answer) + 1] == [*first, *answer, tokenizer.eos_token_id]


@pytest.mark.parametrize("template", ["{{ raise_exception('roles must alternate') }}", "{{ messages[0].content + 1 }}"])
def test_a_template_that_refuses_is_told_in_a_sentence(demo, template, monkeypatch):
    monkeypatch.setattr(demo.models.tokenizer, "chat_template", template)
    with pytest.raises(BadRequest) as told:
        chat_prompt(demo.models.tokenizer, said("x"))
    assert (told.value.param, told.value.status) == ("messages", 400)
