"""A chat as one prompt, by the template that comes with the model's tokenizer."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from swarm.client import conversation
from swarm.client.control_tokens import TooManyControlTokens
from swarm.client.conversation import NoChatTemplate, TemplateRefuses, by_template
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import Message


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """About the text that the model sees of a chat, by which its length can be told."""
    told = [
        conversation.Message(role=message.role, content=message.content) for message in messages
    ]
    try:
        return str(tokenizer.apply_chat_template(told, add_generation_prompt=True, tokenize=False))
    except Exception:  # the template refuses it: why, is told when the chat is read
        return "".join(message.content for message in messages)


def chat_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The token ids after which the assistant's answer begins.

    Raises:
        BadRequest: if the model has no template, its template cannot tell such a chat, or the
            messages hold too many control tokens.
    """
    told = [
        conversation.Message(role=message.role, content=message.content) for message in messages
    ]
    try:
        return by_template(tokenizer, "this model")(told)
    except NoChatTemplate:
        problem = (
            "this model has no chat template; ask POST /v1/completions to continue a text instead"
        )
        raise BadRequest(problem, "model", "no_chat_template") from None
    except TemplateRefuses as refusal:
        raise BadRequest(
            f"the model's chat template refuses them ({refusal.why})", "messages"
        ) from None
    except TooManyControlTokens as error:
        raise BadRequest(str(error), "messages") from None
