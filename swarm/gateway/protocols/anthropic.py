"""Anthropic's Messages: whole, or as a stream of content blocks."""

import secrets
from collections.abc import Sequence
from typing import Any

from swarm.client.chat_template import ChatPrompt
from swarm.dialogue.answer import joined
from swarm.dialogue.events import CallArguments, CallBegun, Event, Reasoning, Text
from swarm.errors import PromptTooLong
from swarm.gateway.bounded_json import read_object
from swarm.gateway.errors import BadRequest, ErrorReply
from swarm.gateway.protocols.anthropic_fields import as_chat
from swarm.gateway.protocols.deltas import object_of
from swarm.gateway.protocols.protocol import Answer, Protocol, Reply, ReplyTerms
from swarm.gateway.requests import Body, ChatBody
from swarm.gateway.service import EndEvent, TokenEvent
from swarm.gateway.sse import ServerEvent, StreamFrame
from swarm.gateway.validation import validated
from swarm.outputs import Generation

PING = ServerEvent({"type": "ping"}, "ping")
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
# Anthropic's names for kinds of errors, by status; other ones below 500 are invalid requests
ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}

Fields = dict[str, Any]


def error_body(error: ErrorReply) -> Fields:
    """Return an error in Anthropic's envelope."""
    kind = ERROR_TYPES.get(error.status, "api_error")
    if kind == "api_error" and error.status < 500:
        kind = "invalid_request_error"
    message = error.message
    if error.code == PromptTooLong.api_code:  # agents know by these words that they have to compact
        message = f"prompt is too long: {message}"
    return {"type": "error", "error": {"type": kind, "message": message}}


class AnthropicMessages(Protocol):
    """``POST /v1/messages``."""

    def read(self, data: bytes, strict: bool) -> Body:
        fields = read_object(data)
        if fields.get("max_tokens") is None:
            raise BadRequest("field required", "max_tokens")
        chat, renames = as_chat(fields)
        return validated(chat, ChatBody, strict, renames)

    def reply(self, body: Body, terms: ReplyTerms) -> Reply:
        return AnthropicReply(body, terms)


def read_counted(data: bytes, strict: bool) -> Body:
    """Read the body of ``POST /v1/messages/count_tokens``; see `Protocol.read`."""
    chat, renames = as_chat(read_object(data))
    return validated(chat, ChatBody, strict, renames)


class AnthropicReply(Reply):
    """One message. Beside Anthropic's fields it has ``swarm``, as OpenAI's replies have it."""

    heartbeat = PING.encode()

    def __init__(self, body: Body, terms: ReplyTerms) -> None:
        self._body = body
        self._terms = terms
        self._id = f"msg_{secrets.token_hex(12)}"
        self._prompt = ChatPrompt([])
        self._answer: Answer | None = None
        self._block: type[Event] | None = None  # the kind of the open content block
        self._blocks = 0
        self._calls = 0

    def begin(self, prompts: Sequence[ChatPrompt]) -> None:
        (self._prompt,) = prompts
        self._answer = self._terms.answer(self._prompt)

    def whole(self, generations: Sequence[Generation]) -> Fields:
        (generation,) = generations
        assert self._answer is not None
        content: list[Fields] = []
        for event in joined(self._answer.whole(generation.text)):
            if isinstance(event, CallArguments):
                content[-1]["input"] = object_of(event.text)
                continue
            self._calls += isinstance(event, CallBegun)
            content.append(_filled(event))
        return {
            **self._message(content),
            **self._stopped(generation),
            "usage": _usage(generation),
            **self._ignored(),
        }

    def opened(self) -> list[StreamFrame]:
        usage = {"input_tokens": len(self._prompt.ids), "output_tokens": 0}
        message = {**self._message([]), "stop_reason": None, "usage": usage, **self._ignored()}
        return [_event("message_start", message=message), PING]

    def token(self, event: TokenEvent) -> list[StreamFrame]:
        assert self._answer is not None
        return self._frames(self._answer.push(event.piece.text))

    def ended(self, event: EndEvent) -> list[StreamFrame]:
        assert self._answer is not None
        frames = [*self._frames(self._answer.end()), *self._close_block()]
        delta = self._stopped(event.generation)
        last = _event("message_delta", delta=delta, usage=_usage(event.generation))
        return [*frames, last]

    def closed(self, generations: Sequence[Generation]) -> list[StreamFrame]:
        return [_event("message_stop")]

    def failed(self, error: ErrorReply) -> list[StreamFrame]:
        return [ServerEvent(error_body(error), "error")]

    def _frames(self, events: Sequence[Event]) -> list[StreamFrame]:
        frames: list[StreamFrame] = []
        for event in events:
            begins = isinstance(event, CallBegun)
            kind = CallBegun if isinstance(event, CallArguments) else type(event)
            if begins or kind is not self._block:
                frames += self._close_block()
                self._block = kind
                self._calls += begins
                start = _event(
                    "content_block_start", index=self._blocks, content_block=_empty(event)
                )
                frames.append(start)
            if not begins:
                delta = _event("content_block_delta", index=self._blocks, delta=_delta(event))
                frames.append(delta)
        return frames

    def _close_block(self) -> list[StreamFrame]:
        if self._block is None:
            return []
        frames: list[StreamFrame] = []
        if self._block is Reasoning:
            # No one checks it: thoughts that come back are read as they are.
            signature = {"type": "signature_delta", "signature": ""}
            frames.append(_event("content_block_delta", index=self._blocks, delta=signature))
        frames.append(_event("content_block_stop", index=self._blocks))
        self._block = None
        self._blocks += 1
        return frames

    def _message(self, content: list[Fields]) -> Fields:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._body.model,
            "content": content,
            "stop_sequence": None,
        }

    def _stopped(self, generation: Generation) -> Fields:
        """Return why a message ended."""
        reason = generation.stats.finish_reason
        found = self._terms.stop_string(generation, self._body.stop)
        if reason == "stop" and found is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": found}
        stopped = "tool_use" if self._calls and reason == "stop" else STOP_REASONS[reason]
        return {"stop_reason": stopped, "stop_sequence": None}

    def _ignored(self) -> Fields:
        ignored = list(self._terms.ignored)
        return {"swarm": {"ignored": ignored}} if ignored else {}


def _event(name: str, **fields: Any) -> ServerEvent:
    return ServerEvent({"type": name, **fields}, name)


def _empty(event: Event) -> Fields:
    """Return the content block that an event begins, without the event's own text."""
    match event:
        case Reasoning():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case CallBegun():
            number = event.id or f"toolu_{secrets.token_hex(12)}"
            return {"type": "tool_use", "id": number, "name": event.name, "input": {}}
    return {"type": "text", "text": ""}


def _filled(event: Event) -> Fields:
    match event:
        case Reasoning():
            return {**_empty(event), "thinking": event.text}
        case Text():
            return {**_empty(event), "text": event.text}
    return _empty(event)


def _delta(event: Event) -> Fields:
    match event:
        case Reasoning():
            return {"type": "thinking_delta", "thinking": event.text}
        case CallArguments():
            return {"type": "input_json_delta", "partial_json": event.text}
        case Text():
            return {"type": "text_delta", "text": event.text}
    raise AssertionError(event)


def _usage(generation: Generation) -> Fields:
    stats = generation.stats
    return {
        "input_tokens": stats.prompt_tokens - stats.cached_tokens,
        "cache_read_input_tokens": stats.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": stats.new_tokens,
    }
