"""Turn a chat into a prompt, and tell what form its answer has, by the model's chat template."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from swarm.client.chat_template import ChatPrompt, ChatTemplate, Rendering
from swarm.client.control_tokens import TooManyControlTokens
from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline, Trigger
from swarm.dialogue.answer import AnswerForm
from swarm.dialogue.formats import BY_NAME, thought_tags, tool_format
from swarm.dialogue.in_words import calls_in_words, tools_in_words
from swarm.dialogue.outlines import outline_of
from swarm.dialogue.tools import Tools
from swarm.errors import NoChatTemplate, TemplateRefuses
from swarm.gateway.errors import BadRequest
from swarm.gateway.forced_calls import FREE, ForcedCall, forced_call
from swarm.gateway.messages import with_call_ids
from swarm.gateway.requests import ChatBody
from swarm.gateway.strict_calls import strict_calls
from swarm.gateway.thinking import EFFORT, SWITCHES


@dataclass(frozen=True)
class Chat:
    """A chat on its way to a model: its template, and the form of its answer.

    Attributes:
        forced: the call that the answer has to begin with, if any.
        strict: where the arguments of strict functions begin.
    """

    body: ChatBody
    template: ChatTemplate
    form: AnswerForm
    forced: ForcedCall = FREE
    strict: tuple[Trigger, ...] = ()

    @classmethod
    def of(
        cls, body: ChatBody, tokenizer: PreTrainedTokenizerBase, tool_parser: str | None = None
    ) -> "Chat":
        """Prepare a chat, and note the fields that this model does not read.

        Args:
            tool_parser: how the model writes calls; by default its template tells.

        Raises:
            BadRequest: if the model has no template, or cannot be made to call the chosen tool.
        """
        schemas = body.schemas
        template = template_of(tokenizer, with_tools=bool(schemas))
        calls = BY_NAME[tool_parser] if tool_parser else tool_format(template.source)
        form = AnswerForm(
            calls,
            thought_tags(template.source),
            Tools(schemas) if schemas else None,
            body.parallel_tool_calls,
        )
        body.ignore(*unread_fields(template, body))
        forced = forced_call(body.tool_choice, schemas, calls)
        if forced is not FREE:
            return cls(body, template, form, forced)
        functions = [schema["function"] for schema in schemas]
        strict = strict_calls(functions, frozenset(body.strict.values()), calls)
        if not strict:
            body.ignore(*body.strict)
        return cls(body, template, form, strict=strict)

    def constraint(self, ending: str) -> Constraint | Outline | None:
        """Return what the answer has to look like behind its opening.

        Args:
            ending: of the prompt.
        """
        if self.forced is not FREE:
            return self.forced.constraint
        return outline_of(self.body.constraint, self.form, ending, self.strict)

    def text(self) -> str:
        """Return approximately the text that the model sees of a chat, to estimate its length."""
        messages, rendering = self._rendering()
        try:
            return self.template.text(messages, rendering)
        except Exception:  # the template refuses the chat; `prompt` raises the reason
            return "".join(message.content for message in self.body.messages)

    def prompt(self) -> ChatPrompt:
        """Return the prompt after which the assistant's answer begins.

        Raises:
            BadRequest: if the template refuses the chat, or the messages hold too many control
                tokens.
        """
        messages, rendering = self._rendering()
        try:
            return self.template.render(messages, rendering)
        except TemplateRefuses as refusal:
            raise BadRequest(
                f"the model's chat template refuses them ({refusal.why})", "messages"
            ) from None
        except TooManyControlTokens as error:
            raise BadRequest(str(error), "messages") from None

    def _rendering(self) -> tuple[list[dict[str, Any]], Rendering]:
        """Return the messages and all else for the template."""
        body = self.body
        messages = with_call_ids([dict(message.as_message()) for message in body.messages])
        tools = body.schemas
        if not self.template.mentions("tool_calls"):
            messages = calls_in_words(messages)
        if tools and not self.template.mentions("tools"):
            messages = tools_in_words(messages, tools)
            tools = []
        return messages, Rendering(
            tools=tools,
            variables=body.variables,
            continues=body.continues,
            opening=self.forced.opening,
            thoughts=self.form.tags,
            without_thoughts=self.forced is not FREE,
        )


def template_of(tokenizer: PreTrainedTokenizerBase, with_tools: bool = False) -> ChatTemplate:
    """Return the model's chat template. Raise `BadRequest` if it has none."""
    try:
        return ChatTemplate(tokenizer, "this model", with_tools)
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
    given = body.model_fields_set
    yield from (name for name, is_read in read.items() if not is_read and name in given)
    for name in body.chat_template_kwargs:
        if not template.takes(name):
            yield f"chat_template_kwargs.{name}"
