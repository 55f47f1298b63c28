"""Ollama's chats and texts: whole, or line by line."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from swarm.client.chat_template import ChatPrompt
from swarm.dialogue.answer import joined
from swarm.dialogue.events import CallArguments, CallBegun, Event, Reasoning, Text
from swarm.gateway.bounded_json import read_object
from swarm.gateway.errors import ErrorReply
from swarm.gateway.field_names import of_messages
from swarm.gateway.protocols.deltas import object_of
from swarm.gateway.protocols.ollama_fields import NAMES, as_chat, as_generation
from swarm.gateway.protocols.protocol import Answer, Protocol, Reply, ReplyTerms
from swarm.gateway.requests import Body, ChatBody, TextBody
from swarm.gateway.service import EndEvent, TokenEvent
from swarm.gateway.sse import StreamFrame, as_json
from swarm.gateway.validation import validated
from swarm.outputs import Generation

LINES = "application/x-ndjson"

Fields = dict[str, Any]


def error_body(error: ErrorReply) -> Fields:
    """Return an error in Ollama's envelope."""
    return {"error": error.message}


@dataclass(frozen=True)
class JsonLine:
    """One line of a stream."""

    data: Fields

    def encode(self) -> bytes:
        return f"{as_json(self.data)}\n".encode("utf-8", "replace")


class OllamaChat(Protocol):
    """``POST /api/chat``."""

    def read(self, data: bytes, strict: bool) -> Body:
        chat, ignored = as_chat(read_object(data))
        body = validated(chat, ChatBody, strict, NAMES)
        body.ignore(*ignored)
        return body

    def reply(self, body: Body, terms: ReplyTerms) -> Reply:
        return OllamaReply(body, terms, is_chat=True)


class OllamaGenerate(Protocol):
    """``POST /api/generate``."""

    def read(self, data: bytes, strict: bool) -> Body:
        fields, ignored = as_generation(read_object(data))
        body: Body
        if "prompt" in fields:
            body = validated(fields, TextBody, strict, NAMES)
        else:
            origins = ("system", "prompt")[-len(fields["messages"]) :]
            body = validated(fields, ChatBody, strict, [*of_messages(origins), *NAMES])
        body.ignore(*ignored)
        return body

    def reply(self, body: Body, terms: ReplyTerms) -> Reply:
        return OllamaReply(body, terms, is_chat=False)


class OllamaReply(Reply):
    """One answer: as a message, or as a text if it is not a chat."""

    content_type = LINES

    def __init__(self, body: Body, terms: ReplyTerms, is_chat: bool) -> None:
        self._body = body
        self._terms = terms
        self._is_chat = is_chat
        self._answer: Answer | None = None
        self._call: CallBegun | None = None  # whose arguments are still coming
        self._arguments: list[str] = []
        self.heartbeat = JsonLine(self._line(self._said())).encode()

    def begin(self, prompts: Sequence[ChatPrompt]) -> None:
        (prompt,) = prompts
        self._answer = self._terms.answer(prompt)

    def whole(self, generations: Sequence[Generation]) -> Fields:
        (generation,) = generations
        assert self._answer is not None
        texts: dict[type[Event], str] = {Text: "", Reasoning: ""}
        calls: list[Fields] = []
        for event in joined(self._answer.whole(generation.text)):
            match event:
                case CallBegun():
                    calls.append({"function": {"name": event.name, "arguments": {}}})
                case CallArguments():
                    calls[-1]["function"]["arguments"] = object_of(event.text)
                case _:
                    texts[type(event)] += event.text
        said = self._said(texts[Text], texts[Reasoning], calls)
        return {**self._line(said), **_figures(generation), **self._ignored()}

    def token(self, event: TokenEvent) -> list[StreamFrame]:
        assert self._answer is not None
        return self._frames(self._answer.push(event.piece.text))

    def ended(self, event: EndEvent) -> list[StreamFrame]:
        assert self._answer is not None
        frames = [*self._frames(self._answer.end()), *self._called()]
        last = {**self._line(self._said()), **_figures(event.generation), **self._ignored()}
        return [*frames, JsonLine(last)]

    def closed(self, generations: Sequence[Generation]) -> list[StreamFrame]:
        return []

    def failed(self, error: ErrorReply) -> list[StreamFrame]:
        return [JsonLine(error_body(error))]

    def _frames(self, events: Sequence[Event]) -> list[StreamFrame]:
        """Return a line for each piece of text; a call is told when it is whole."""
        frames: list[StreamFrame] = []
        for event in events:
            match event:
                case CallArguments():
                    self._arguments.append(event.text)
                    continue
                case CallBegun():
                    frames += self._called()
                    self._call = event
                    continue
                case Reasoning():
                    said = self._said(thoughts=event.text)
                case Text():
                    said = self._said(event.text)
            frames += [*self._called(), JsonLine(self._line(said))]
        return frames

    def _called(self) -> list[StreamFrame]:
        """Return the line of the call whose arguments have come, if there is one."""
        call, self._call = self._call, None
        text = "".join(self._arguments)
        self._arguments = []
        if call is None:
            return []
        function = {"name": call.name, "arguments": object_of(text)}
        return [JsonLine(self._line(self._said(calls=[{"function": function}])))]

    def _said(self, text: str = "", thoughts: str = "", calls: Sequence[Fields] = ()) -> Fields:
        """Return the fields that carry a part of an answer, or all of it."""
        more: Fields = {"thinking": thoughts} if thoughts else {}
        if not self._is_chat:
            return {"response": text, **more}
        if calls:
            more["tool_calls"] = list(calls)
        return {"message": {"role": "assistant", "content": text, **more}}

    def _line(self, said: Fields) -> Fields:
        return {"model": self._body.model, "created_at": _now(), **said, "done": False}

    def _ignored(self) -> Fields:
        ignored = list(self._terms.ignored)
        return {"swarm": {"ignored": ignored}} if ignored else {}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def _figures(generation: Generation) -> Fields:
    """Return what the last line tells; times are nanoseconds."""
    stats = generation.stats
    first_ns = round(stats.time_to_first_token_ms * 1e6)
    all_ns = round(stats.seconds * 1e9)
    return {
        "done": True,
        "done_reason": stats.finish_reason,
        "total_duration": all_ns,
        "load_duration": 0,
        "prompt_eval_count": stats.prompt_tokens,
        "prompt_eval_duration": min(first_ns, all_ns),
        "eval_count": stats.new_tokens,
        "eval_duration": max(0, all_ns - first_ns),
    }
