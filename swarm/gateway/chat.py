"""A chat as one prompt, by the template that comes with the model's tokenizer."""

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import Message


def chat_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The token ids after which the assistant's answer begins.

    Raises:
        BadRequest: if the model has no template, or its template cannot tell such a chat.
    """
    if not getattr(tokenizer, "chat_template", None):
        problem = "this model has no chat template; ask POST /v1/completions to continue a text instead"
        raise BadRequest(problem, "model", "no_chat_template")
    told = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as error:  # what a template does with content it was not made for
        raise BadRequest(f"the model's chat template refuses them ({error})", "messages") from None
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids
