"""A conversation as data: who said what, and the token ids that a model sees of it.

No I/O, no network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from swarm.client.control_tokens import TooManyControlTokens, control_tokens
from swarm.client.prompt import encoded
from swarm.errors import NoChatTemplate, TemplateRefuses


class Message(TypedDict):
    """One message, as chat templates and OpenAI's API have it."""

    role: str  # system, developer, user or assistant
    content: str


@dataclass(frozen=True)
class Turn:
    """A question and its answer; ``cut`` if the answer was not finished."""

    question: str
    answer: str
    cut: bool = False


@dataclass(frozen=True)
class Conversation:
    """What was said until now."""

    system: str = ""
    turns: tuple[Turn, ...] = ()

    def and_then(self, turn: Turn) -> "Conversation":
        return replace(self, turns=(*self.turns, turn))

    def without_last(self) -> "Conversation":
        return replace(self, turns=self.turns[:-1])

    def without_oldest(self) -> "Conversation":
        return replace(self, turns=self.turns[1:])

    def messages(self, *question: str) -> list[Message]:
        """All of it, and perhaps a question that has no answer yet."""
        said = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.turns:
            said += [
                Message(role="user", content=turn.question),
                Message(role="assistant", content=turn.answer),
            ]
        return said + [Message(role="user", content=each) for each in question]


Render = Callable[[Sequence[Message]], list[int]]  # messages to the token ids of a prompt


def by_template(tokenizer: Any, model: str) -> Render:
    """The chat template of a (transformers) tokenizer, up to where the answer begins.

    Control tokens in a message are text: only the template writes real ones. A developer's message
    is a system message where the template does not speak of developers.

    Raises `NoChatTemplate` at once. The returned function raises `TemplateRefuses` for messages
    that the template has no form for, and `TooManyControlTokens`.
    """
    template = _template(tokenizer)
    if not template:
        raise NoChatTemplate(model)
    control = control_tokens(tokenizer, template)
    knows_developers = "developer" in template

    def told(message: Message) -> Message:
        role = message["role"]
        if role == "developer" and not knows_developers:
            role = "system"
        return Message(role=role, content=control.broken(message["content"], role))

    def render(messages: Sequence[Message]) -> list[int]:
        try:
            chat = tokenizer.apply_chat_template(
                [told(message) for message in messages], add_generation_prompt=True, tokenize=False
            )
            return control.encode(chat)
        except TooManyControlTokens:  # a bound of ours, not of the template
            raise
        except (
            Exception
        ) as error:  # a template is a program that came with the model: it may raise anything
            raise TemplateRefuses(
                model, " ".join(str(error).split()) or type(error).__name__
            ) from error

    return render


def _template(tokenizer: Any) -> str:
    """The source of the template for plain chats; empty if there is none."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):  # by name, for several purposes
        template = template.get("default")
    return template or ""


def as_plain_text(tokenizer: Any) -> Render:
    """One text that goes on and on: what was said, joined as it is."""

    def render(messages: Sequence[Message]) -> list[int]:
        return encoded(tokenizer, "".join(message["content"] for message in messages))

    return render


def fit(
    conversation: Conversation, question: str, render: Render, tokens: int
) -> tuple[Conversation, list[int]]:
    """The conversation without the oldest turns that have no room in so many ``tokens``, and the
    prompt.

    The system prompt and the question stay, even where there is no room for these alone.
    """
    while len(prompt := render(conversation.messages(question))) > tokens and conversation.turns:
        conversation = conversation.without_oldest()
    return conversation, prompt
