"""Turn a chat into a prompt, by the chat template that comes with the model's tokenizer."""

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from swarm.client.chat_template import ChatPrompt, ChatTemplate, Rendering
from swarm.client.control_tokens import TooManyControlTokens
from swarm.dialogue.in_words import calls_in_words
from swarm.errors import NoChatTemplate, TemplateRefuses
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import ChatBody
from swarm.gateway.thinking import EFFORT, SWITCHES


def template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Return the model's chat template. Raise `BadRequest` if it has none."""
    try:
        return ChatTemplate(tokenizer, "this model")
    except NoChatTemplate:
        problem = (
            "this model has no chat template; ask POST /v1/completions to continue a text instead"
        )
        raise BadRequest(problem, "model", "no_chat_template") from None


def unread_fields(template: ChatTemplate, body: ChatBody) -> Iterator[str]:
    """Yield the fields of a body that this template does not read: they have no effect."""
    switch = any(map(template.takes, SWITCHES))
    read = {
        "enable_thinking": switch,
        "thinking": switch,
        "reasoning": switch or template.takes(EFFORT),
        "reasoning_effort": switch or template.takes(EFFORT),
    }
    yield from (
        name for name, is_read in read.items() if not is_read and name in body.model_fields_set
    )
    for name in body.chat_template_kwargs:
        if not template.takes(name):
            yield f"chat_template_kwargs.{name}"


def chat_text(template: ChatTemplate, body: ChatBody) -> str:
    """Return approximately the text that the model sees of a chat, to estimate its length."""
    messages, rendering = _of(template, body)
    try:
        return template.text(messages, rendering)
    except Exception:  # the template refuses the chat; `chat_prompt` raises the reason
        return "".join(message.content for message in body.messages)


def chat_prompt(template: ChatTemplate, body: ChatBody) -> ChatPrompt:
    """Return the prompt after which the assistant's answer begins.

    Raises:
        BadRequest: if the template refuses the chat, or the messages hold too many control tokens.
    """
    messages, rendering = _of(template, body)
    try:
        return template.render(messages, rendering)
    except TemplateRefuses as refusal:
        raise BadRequest(
            f"the model's chat template refuses them ({refusal.why})", "messages"
        ) from None
    except TooManyControlTokens as error:
        raise BadRequest(str(error), "messages") from None


def _of(template: ChatTemplate, body: ChatBody) -> tuple[list[dict[str, Any]], Rendering]:
    """Return the messages and all else for the template."""
    messages: list[dict[str, Any]] = [dict(message.as_message()) for message in body.messages]
    if not template.mentions("tool_calls"):
        messages = calls_in_words(messages)
    return messages, Rendering(variables=body.variables, continues=body.continues)
