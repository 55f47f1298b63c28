"""What a model sees of a conversation."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from swarm.conversation import (
    Conversation,
    Message,
    NoChatTemplate,
    TemplateRefuses,
    Turn,
    as_plain_text,
    by_template,
    fit,
)

TEMPLATE = """
{%- for message in messages %}
{%- if message.content == "no" %}{{ raise_exception("no, thanks") }}{% endif %}
{{- "[" + message.role + "] " + message.content + " " }}
{%- endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""
WORDS = ["?", "[", "]", "system", "user", "assistant", "be", "brief", "a", "b", "c", "d"]
TALK = Conversation("be brief", (Turn("a", "b"), Turn("c", "d", cut=True)))


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?", chat_template=TEMPLATE)


def test_a_conversation_is_messages_in_order_a_cut_answer_among_them() -> None:
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    said = ["be brief", "a", "b", "c", "d", "e"]
    expected = [Message(role=role, content=text) for role, text in zip(roles, said, strict=True)]
    assert TALK.messages("e") == expected
    assert TALK.messages() == expected[:-1]
    assert Conversation().messages("e") == expected[-1:]


def test_a_template_says_what_the_model_sees(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = by_template(tokenizer, "m")(Conversation("be brief").messages("a"))
    assert tokenizer.decode(prompt) == "[ system ] be brief [ user ] a [ assistant ]"


def test_a_model_without_a_template_is_told_at_once(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = None
    with pytest.raises(NoChatTemplate, match=r"m has no chat template.*--raw"):
        by_template(tokenizer, "m")


@pytest.mark.parametrize("template", [TEMPLATE, "{{ messages[0].content / 2 }}"])
def test_a_template_that_fails_is_one_sentence(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateRefuses, match="the chat template of m refuses this conversation: ") as error:
        by_template(tokenizer, "m")(Conversation().messages("no"))
    assert "\n" not in str(error.value)


def test_plain_text_goes_on(tokenizer: PreTrainedTokenizerFast) -> None:
    talk = Conversation(turns=(Turn("a ", "b "),))
    assert as_plain_text(tokenizer)(talk.messages("c")) == [WORDS.index(word) for word in "abc"]


def test_what_has_no_room_is_left_out_from_the_oldest_on(tokenizer: PreTrainedTokenizerFast) -> None:
    render = by_template(tokenizer, "m")
    whole = len(render(TALK.messages("a")))
    assert fit(TALK, "a", render, whole) == (TALK, render(TALK.messages("a")))
    shorter, prompt = fit(TALK, "a", render, whole - 1)
    assert (shorter.system, shorter.turns) == (TALK.system, TALK.turns[1:])
    assert prompt == render(shorter.messages("a"))
    nothing, prompt = fit(TALK, "a", render, 1)  # the caller sees that this is too long
    assert nothing.turns == ()
    assert len(prompt) > 1
