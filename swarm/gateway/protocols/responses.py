"""OpenAI's Responses, without anything that is stored: whole, or as a stream of items."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.client.chat_template import ChatPrompt
from swarm.dialogue.events import CallArguments, CallBegun, Event, Reasoning, Text
from swarm.gateway.bounded_json import read_object
from swarm.gateway.errors import ErrorReply
from swarm.gateway.protocols.deltas import new_call_id
from swarm.gateway.protocols.protocol import Answer, Protocol, Reply, ReplyTerms
from swarm.gateway.protocols.responses_fields import as_chat
from swarm.gateway.requests import Body, ChatBody
from swarm.gateway.service import EndEvent, TokenEvent
from swarm.gateway.sse import ServerEvent, StreamFrame
from swarm.gateway.validation import validated
from swarm.outputs import Generation

Fields = dict[str, Any]

# fields of the request that a response tells again, with their defaults
ECHOED: Fields = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
}


class OpenAiResponses(Protocol):
    """``POST /v1/responses``."""

    def __init__(self) -> None:
        self._fields: Fields = {}

    def read(self, data: bytes, strict: bool) -> Body:
        fields = read_object(data)
        chat, skipped, renames = as_chat(fields)
        body = validated(chat, ChatBody, strict, renames)
        body.ignore(*skipped)
        self._fields = {
            name: fields[name] if fields.get(name) is not None else default
            for name, default in ECHOED.items()
        }
        return body

    def reply(self, body: Body, terms: ReplyTerms) -> Reply:
        return ResponsesReply(body, terms, self._fields)


class ResponseItem:
    """One item of a response: thoughts, a message or a call.

    Attributes:
        index: of the item in the response.
    """

    def __init__(self, first: Event, index: int) -> None:
        self.index = index
        self.kind: type[Event] = CallBegun if isinstance(first, CallArguments) else type(first)
        prefix = {Reasoning: "rs", Text: "msg", CallBegun: "fc"}[self.kind]
        self.id = f"{prefix}_{secrets.token_hex(12)}"
        self._call = first if isinstance(first, CallBegun) else None
        self._call_id = (self._call.id if self._call else "") or new_call_id()
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def add(self, text: str) -> None:
        self._texts.append(text)

    @property
    def part(self) -> Fields:
        """The only content part of thoughts or of a message."""
        if self.kind is Reasoning:
            return {"type": "reasoning_text", "text": self.text}
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def fields(self, status: str = "completed") -> Fields:
        """Return the item; one that has just begun has no content yet."""
        content = [self.part] if self._texts else []
        if self.kind is Reasoning:
            return {"id": self.id, "type": "reasoning", "summary": [], "content": content}
        if self._call is not None:
            return {
                "id": self.id,
                "type": "function_call",
                "status": status,
                "call_id": self._call_id,
                "name": self._call.name,
                "arguments": self.text,
            }
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }


class ResponsesReply(Reply):
    """One response. Beside OpenAI's fields it has ``swarm``, as chats have it.

    Args:
        echoed: fields of the request that the response tells again.
    """

    def __init__(self, body: Body, terms: ReplyTerms, echoed: Mapping[str, Any]) -> None:
        self._body = body
        self._terms = terms
        self._echoed = echoed
        self._id = f"resp_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._answer: Answer | None = None
        self._items: list[ResponseItem] = []
        self._number = 0  # of the next event
        self._thought_tokens = 0

    def begin(self, prompts: Sequence[ChatPrompt]) -> None:
        (prompt,) = prompts
        self._answer = self._terms.answer(prompt)

    def whole(self, generations: Sequence[Generation]) -> Fields:
        (generation,) = generations
        for piece in generation.pieces:
            self._push(piece.text)
        assert self._answer is not None
        self._take(self._answer.end())
        return self._response(generation)

    def opened(self) -> list[StreamFrame]:
        return [
            self._event("response.created", response=self._response()),
            self._event("response.in_progress", response=self._response()),
        ]

    def token(self, event: TokenEvent) -> list[StreamFrame]:
        return self._push(event.piece.text)

    def ended(self, event: EndEvent) -> list[StreamFrame]:
        assert self._answer is not None
        frames = [*self._take(self._answer.end()), *self._close()]
        response = self._response(event.generation)
        return [*frames, self._event(f"response.{response['status']}", response=response)]

    def closed(self, generations: Sequence[Generation]) -> list[StreamFrame]:
        return []

    def failed(self, error: ErrorReply) -> list[StreamFrame]:
        told = {"code": error.code or "server_error", "message": error.message}
        response = {**self._response(), "status": "failed", "error": told}
        return [self._event("response.failed", response=response)]

    def _push(self, text: str) -> list[StreamFrame]:
        assert self._answer is not None
        events = self._answer.push(text)
        self._thought_tokens += any(isinstance(event, Reasoning) for event in events)
        return self._take(events)

    def _take(self, events: Sequence[Event]) -> list[StreamFrame]:
        frames: list[StreamFrame] = []
        for event in events:
            kind = CallBegun if isinstance(event, CallArguments) else type(event)
            last = self._items[-1] if self._items else None
            if last is None or isinstance(event, CallBegun) or kind is not last.kind:
                frames += self._close()
                frames += self._open(ResponseItem(event, len(self._items)))
            if not isinstance(event, CallBegun):
                item = self._items[-1]
                item.add(event.text)
                more: Fields = {"logprobs": []} if item.kind is Text else {}
                frames.append(
                    self._of_item(f"{_delta(item)}.delta", item, delta=event.text, **more)
                )
        return frames

    def _open(self, item: ResponseItem) -> list[StreamFrame]:
        self._items.append(item)
        added = self._event(
            "response.output_item.added",
            output_index=item.index,
            item=item.fields("in_progress"),
        )
        if item.kind is CallBegun:
            return [added]
        return [added, self._of_item("response.content_part.added", item, part=item.part)]

    def _close(self) -> list[StreamFrame]:
        """Return the events that end the last item, if there is one."""
        if not self._items:
            return []
        item = self._items[-1]
        if item.kind is CallBegun:
            done = {"arguments": item.text, "name": item.fields()["name"]}
        else:
            done = {"text": item.text, **({"logprobs": []} if item.kind is Text else {})}
        frames = [self._of_item(f"{_delta(item)}.done", item, **done)]
        if item.kind is not CallBegun:
            frames.append(self._of_item("response.content_part.done", item, part=item.part))
        ended = {"output_index": item.index, "item": item.fields()}
        return [*frames, self._event("response.output_item.done", **ended)]

    def _of_item(self, kind: str, item: ResponseItem, **fields: Any) -> StreamFrame:
        place = {} if item.kind is CallBegun else {"content_index": 0}
        return self._event(kind, item_id=item.id, output_index=item.index, **place, **fields)

    def _event(self, kind: str, **fields: Any) -> StreamFrame:
        number, self._number = self._number, self._number + 1
        return ServerEvent({"type": kind, "sequence_number": number, **fields}, kind)

    def _response(self, generation: Generation | None = None) -> Fields:
        """Return the response: as it ended, or as it begins."""
        is_cut = generation is not None and generation.stats.finish_reason == "length"
        status = "in_progress" if generation is None else "incomplete" if is_cut else "completed"
        ignored = list(self._terms.ignored)
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "model": self._body.model,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [item.fields() for item in self._items],
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            **self._echoed,
            "usage": self._usage(generation) if generation else None,
            **({"swarm": {"ignored": ignored}} if ignored else {}),
        }

    def _usage(self, generation: Generation) -> Fields:
        stats = generation.stats
        return {
            "input_tokens": stats.prompt_tokens,
            "input_tokens_details": {"cached_tokens": stats.cached_tokens},
            "output_tokens": stats.new_tokens,
            "output_tokens_details": {"reasoning_tokens": self._thought_tokens},
            "total_tokens": stats.prompt_tokens + stats.new_tokens,
        }


def _delta(item: ResponseItem) -> str:
    """Return the name of the events that carry an item's text."""
    names = {Reasoning: "reasoning_text", Text: "output_text", CallBegun: "function_call_arguments"}
    return f"response.{names[item.kind]}"
