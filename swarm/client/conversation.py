"""A conversation as data: its turns, and the token ids that a model sees of it.

No I/O, no network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import NotRequired, TypedDict

from swarm.client.chat_template import ChatTemplate
from swarm.client.prompt import encoded
from swarm.errors import NoChatTemplate


class Message(TypedDict):
    """One message, as in chat templates and OpenAI's API."""

    role: str  # system, developer, user, assistant or tool
    content: str
    reasoning_content: NotRequired[str]  # what the assistant thought before it answered
    tool_calls: NotRequired[list[dict[str, Any]]]  # of the assistant, in OpenAI's form
    tool_call_id: NotRequired[str]  # of a tool's message: the call that it answers
    name: NotRequired[str]  # of the tool that answers


@dataclass(frozen=True)
class Turn:
    """A question and its answer; ``cut`` if the answer is incomplete."""

    question: str
    answer: str
    cut: bool = False


@dataclass(frozen=True)
class Conversation:
    """The system prompt and the turns so far."""

    system: str = ""
    turns: tuple[Turn, ...] = ()

    def and_then(self, turn: Turn) -> "Conversation":
        return replace(self, turns=(*self.turns, turn))

    def without_last(self) -> "Conversation":
        return replace(self, turns=self.turns[:-1])

    def without_oldest(self) -> "Conversation":
        return replace(self, turns=self.turns[1:])

    def messages(self, *question: str) -> list[Message]:
        """Return all messages, and perhaps a question that has no answer yet."""
        messages = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.turns:
            messages += [
                Message(role="user", content=turn.question),
                Message(role="assistant", content=turn.answer),
            ]
        return messages + [Message(role="user", content=each) for each in question]


Render = Callable[[Sequence[Message]], list[int]]  # messages to the token ids of a prompt


def by_template(tokenizer: Any, model: str) -> Render:
    """Return a function that renders messages by the chat template of a transformers tokenizer.

    The rendered prompt ends where the answer begins. Control tokens in a message are text: only the
    template writes real ones. A developer's message becomes a system message if the template has no
    developers.

    Raise `NoChatTemplate` at once. The returned function raises `TemplateRefuses` for messages that
    the template refuses, and `TooManyControlTokens`.
    """
    template = ChatTemplate(tokenizer, model)
    return lambda messages: template.render(messages).ids


def as_plain_text(tokenizer: Any) -> Render:
    """Return a function that renders messages as one text: their contents, joined."""

    def render(messages: Sequence[Message]) -> list[int]:
        return encoded(tokenizer, "".join(message["content"] for message in messages))

    return render


def asking(tokenizer: Any, model: str) -> Callable[[str], list[int]]:
    """Return a function that turns a question into the token ids of a prompt.

    It goes through the chat template, or is a plain text if the model has none. Raises what
    `by_template` raises for a model that has one.
    """
    try:
        render = by_template(tokenizer, model)
    except NoChatTemplate:
        render = as_plain_text(tokenizer)
    return lambda question: render([Message(role="user", content=question)])


def fit(
    conversation: Conversation, question: str, render: Render, tokens: int
) -> tuple[Conversation, list[int]]:
    """Drop the oldest turns until the prompt fits into ``tokens``; return the rest and the prompt.

    The system prompt and the question always stay, even if they do not fit.
    """
    while len(prompt := render(conversation.messages(question))) > tokens and conversation.turns:
        conversation = conversation.without_oldest()
    return conversation, prompt
