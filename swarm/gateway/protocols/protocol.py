"""What every protocol has: it reads a body, and makes a reply of the texts as they come."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.client.chat_template import ChatPrompt
from swarm.dialogue.answer import AnswerForm, AnswerParser
from swarm.dialogue.events import Event
from swarm.gateway.errors import ErrorReply
from swarm.gateway.requests import Body
from swarm.gateway.service import EndEvent, TokenEvent
from swarm.gateway.sse import COMMENT, EVENT_STREAM, StreamFrame
from swarm.outputs import Generation
from swarm.request import MAX_STOP_CHARS


@dataclass(frozen=True)
class ReplyTerms:
    """What a reply is made with.

    Attributes:
        fingerprint: of the model's weights.
        spell: returns the text of a token id.
        form: of the answers.
        opening: with which an answer was made to begin.
        ignored: fields of the request that had no effect.
    """

    fingerprint: str
    spell: Callable[[int], str]
    form: AnswerForm
    opening: str = ""
    ignored: tuple[str, ...] = ()

    def stop_string(self, generation: Generation, stops: Sequence[str]) -> str | None:
        """Return the stop string that ended a text, if one did."""
        end = "".join(map(self.spell, generation.token_ids[-MAX_STOP_CHARS:]))
        found = [(end.rfind(stop), stop) for stop in stops if stop and stop in end]
        return max(found)[1] if found else None

    def answer(self, prompt: ChatPrompt) -> "Answer":
        """Return the events of one text, which follows this prompt."""
        return Answer(self.form, self.form.opened_by(prompt.ending), self.opening)


class Answer:
    """One text as events, while it comes or as a whole."""

    def __init__(self, form: AnswerForm, begun: bool, opening: str) -> None:
        self._parser = AnswerParser(form, begun)
        self._opening = opening

    def push(self, text: str) -> list[Event]:
        """Return the events that became certain with this text."""
        opening, self._opening = self._opening, ""
        return self._parser.push(opening + text)

    def end(self) -> list[Event]:
        """Return the events that were held back, at the end."""
        return self._parser.end()

    def whole(self, text: str) -> list[Event]:
        """Return the events of the whole text."""
        return [*self.push(text), *self.end()]


class Reply(ABC):
    """One reply, whole or as a stream.

    Attributes:
        content_type: of a stream.
        heartbeat: what a silent stream sends, so that no proxy takes it for dead.
    """

    content_type = EVENT_STREAM
    heartbeat = COMMENT

    @abstractmethod
    def begin(self, prompts: Sequence[ChatPrompt]) -> None:
        """Take note of the prompts, before anything else happens."""

    @abstractmethod
    def whole(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """Return the whole reply: all requested texts, in order."""

    def opened(self) -> list[StreamFrame]:
        """Return what a stream begins with."""
        return []

    @abstractmethod
    def token(self, event: TokenEvent) -> list[StreamFrame]:
        """Return what one token of a text adds to a stream."""

    @abstractmethod
    def ended(self, event: EndEvent) -> list[StreamFrame]:
        """Return what the end of a text adds to a stream."""

    @abstractmethod
    def closed(self, generations: Sequence[Generation]) -> list[StreamFrame]:
        """Return what a stream ends with."""

    @abstractmethod
    def failed(self, error: ErrorReply) -> list[StreamFrame]:
        """Return what a stream ends with that fails."""


class Protocol(ABC):
    """One request in the words of a protocol, and the reply to it."""

    @abstractmethod
    def read(self, data: bytes, strict: bool) -> Body:
        """Read a body. Raise `BadRequest`."""

    @abstractmethod
    def reply(self, body: Body, terms: ReplyTerms) -> Reply:
        """Return a new reply."""
