"""Turn a chat into a prompt, by the chat template that comes with the model's tokenizer."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from swarm.client import conversation
from swarm.client.control_tokens import TooManyControlTokens
from swarm.client.conversation import by_template
from swarm.errors import NoChatTemplate, TemplateRefuses
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import ChatMessage


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage]) -> str:
    """Return approximately the text that the model sees of a chat, to estimate its length."""
    chat = _conversation(messages)
    try:
        return str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    except Exception:  # the template refuses the chat; `chat_prompt` raises the reason
        return "".join(message.content for message in messages)


def chat_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage]) -> list[int]:
    """Return the token ids after which the assistant's answer begins.

    Raises:
        BadRequest: if the model has no template, its template refuses the chat, or the messages
            hold too many control tokens.
    """
    try:
        return by_template(tokenizer, "this model")(_conversation(messages))
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


def _conversation(messages: Sequence[ChatMessage]) -> list[conversation.Message]:
    return [
        conversation.Message(role=message.role, content=message.content) for message in messages
    ]
