"""OpenAI's chats and completions: whole or in chunks."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from swarm.client.chat_template import ChatPrompt
from swarm.dialogue.events import CallBegun, Event, Text
from swarm.gateway.errors import ErrorReply
from swarm.gateway.protocols.deltas import (
    Deltas,
    FunctionDeltas,
    message_of,
    new_call_id,
    new_short_id,
    with_function_call,
)
from swarm.gateway.protocols.logprobs import Spell, chat_logprobs, text_logprobs
from swarm.gateway.protocols.protocol import Answer, Protocol, Reply, ReplyTerms
from swarm.gateway.requests import Body, ChatBody, TextBody
from swarm.gateway.service import EndEvent, TokenEvent
from swarm.gateway.sse import DONE, ServerEvent, StreamFrame
from swarm.gateway.validation import read
from swarm.outputs import Generation, Piece, RouteStop, Stats

Fields = dict[str, Any]
NO_TEXT = Text("")


class OpenAiChat(Protocol):
    """``POST /v1/chat/completions``."""

    def read(self, data: bytes, strict: bool) -> Body:
        return read(data, ChatBody, strict)

    def reply(self, body: Body, terms: ReplyTerms) -> Reply:
        assert isinstance(body, ChatBody)
        shape = FunctionShape if body.functions else ChatShape
        return OpenAiReply(shape(terms), body, terms)


class OpenAiText(Protocol):
    """``POST /v1/completions``."""

    def read(self, data: bytes, strict: bool) -> Body:
        return read(data, TextBody, strict)

    def reply(self, body: Body, terms: ReplyTerms) -> Reply:
        return OpenAiReply(TextShape(), body, terms)


class AnswerShape(ABC):
    """What chats and completions do not have in common."""

    prefix: ClassVar[str]  # of reply ids
    whole: ClassVar[str]  # the ``object`` of a reply
    chunk: ClassVar[str]  # the ``object`` of a chunk
    called: ClassVar[str] = "tool_calls"  # why an answer ends that calls

    @abstractmethod
    def choice(self, events: Sequence[Event]) -> Fields:
        """Return the fields that carry the text of a whole reply."""

    @abstractmethod
    def part(self, event: Event | None, sent: "SentChoice") -> Fields:
        """Return the fields that carry an event of a chunk; None in the last one."""

    @abstractmethod
    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> Fields: ...


class ChatShape(AnswerShape):
    prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    deltas: ClassVar[type[Deltas]] = Deltas

    def __init__(self, terms: ReplyTerms) -> None:
        is_short = terms.form.format is not None and terms.form.format.short_ids
        self.new_id = new_short_id if is_short else new_call_id

    def choice(self, events: Sequence[Event]) -> Fields:
        return {"message": message_of(events, self.new_id)}

    def part(self, event: Event | None, sent: "SentChoice") -> Fields:
        role = {} if sent.started else {"role": "assistant"}
        if event is None:
            return {"delta": role}
        if sent.deltas is None:
            sent.deltas = self.deltas(self.new_id)
        return {"delta": role | sent.deltas.of(event)}

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> Fields:
        return chat_logprobs(pieces, spell)


class FunctionShape(ChatShape):
    """Answers to chats with `functions`, which calls had before tools."""

    called = "function_call"
    deltas = FunctionDeltas

    def choice(self, events: Sequence[Event]) -> Fields:
        return {"message": with_function_call(message_of(events))}


class TextShape(AnswerShape):
    prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    def choice(self, events: Sequence[Event]) -> Fields:
        return {"text": _text(events)}

    def part(self, event: Event | None, sent: "SentChoice") -> Fields:
        return {"text": _text([event] if event else [])}

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> Fields:
        return text_logprobs(pieces, spell)


def _text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


@dataclass
class SentChoice:
    """What the reader of a stream already has of one choice."""

    answer: Answer
    started: bool = False
    deltas: Deltas | None = None
    # peers and their layers, without the round trips, which change all the time
    chain: tuple[tuple[str, tuple[int, int]], ...] = ()

    @property
    def calls(self) -> int:
        return self.deltas.calls if self.deltas is not None else 0


@dataclass
class OpenAiReply(Reply):
    """One reply, whole or in chunks.

    Beside OpenAI's fields it has ``swarm``: the route and the statistics of each text.
    """

    shape: AnswerShape
    body: Body
    terms: ReplyTerms
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _prompts: Sequence[ChatPrompt] = ()
    _sent: dict[int, SentChoice] = field(default_factory=dict)

    def begin(self, prompts: Sequence[ChatPrompt]) -> None:
        self._prompts = prompts

    def whole(self, generations: Sequence[Generation]) -> Fields:
        choices = []
        for index, generation in enumerate(generations):
            events = self._answer(index).whole(generation.text)
            calls = sum(isinstance(event, CallBegun) for event in events)
            choices.append(
                {
                    "index": index,
                    **self.shape.choice(events),
                    "logprobs": self._logprobs(generation.pieces),
                    "finish_reason": self._finish_reason(generation, calls),
                }
            )
        swarm = [
            {
                **_route(generation.route),
                **_stats(generation.stats),
                **self._pieces(generation.pieces),
                **self._ignored(),
            }
            for generation in generations
        ]
        return self._envelope(self.shape.whole, choices, usage=usage(generations), swarm=swarm)

    def token(self, event: TokenEvent) -> list[StreamFrame]:
        sent = self._of(event.index)
        events: list[Event] = sent.answer.push(event.piece.text)
        return self._chunks(event, sent, events or self._empty)

    def ended(self, event: EndEvent) -> list[StreamFrame]:
        sent = self._of(event.index)
        frames = [self._part(event.index, sent, each, {}) for each in sent.answer.end()]
        swarm = {**_route(event.generation.route), **_stats(event.generation.stats)}
        if not sent.started:
            swarm |= self._ignored()
        reason = self._finish_reason(event.generation, sent.calls)
        return [*frames, self._part(event.index, sent, None, swarm, finish_reason=reason)]

    def closed(self, generations: Sequence[Generation]) -> list[StreamFrame]:
        if not self.body.include_usage:
            return [DONE]
        last = self._envelope(self.shape.chunk, [], usage=usage(generations))
        return [ServerEvent(last), DONE]

    def failed(self, error: ErrorReply) -> list[StreamFrame]:
        return [ServerEvent(error.body), DONE]

    @property
    def _empty(self) -> list[Event]:
        """What a token without a text is told by, if there is something to tell of it."""
        return [NO_TEXT] if self._tells_logprobs or self.body.explain else []

    def _chunks(
        self, event: TokenEvent, sent: SentChoice, events: Sequence[Event]
    ) -> list[StreamFrame]:
        """Return one chunk for each event; the first one has what is told of the token."""
        frames = []
        for number, each in enumerate(events):
            swarm: Fields = {}
            logprobs = None
            if number == 0:
                swarm = self._pieces([event.piece])
                logprobs = self._logprobs([event.piece])
                chain = tuple((stop.peer_id, stop.layers) for stop in event.route)
                if chain != sent.chain:
                    swarm |= _route(event.route)
                sent.chain = chain
            if not sent.started:
                swarm |= self._ignored()
            frames.append(self._part(event.index, sent, each, swarm, logprobs=logprobs))
        return frames

    def _part(
        self,
        index: int,
        sent: SentChoice,
        event: Event | None,
        swarm: Fields,
        logprobs: Fields | None = None,
        finish_reason: str | None = None,
    ) -> StreamFrame:
        choice = {
            "index": index,
            **self.shape.part(event, sent),
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        sent.started = True
        more: Fields = {"swarm": swarm} if swarm else {}
        if self.body.include_usage:
            more["usage"] = None
        return ServerEvent(self._envelope(self.shape.chunk, [choice], **more))

    def _of(self, index: int) -> SentChoice:
        if index not in self._sent:
            self._sent[index] = SentChoice(self._answer(index))
        return self._sent[index]

    def _answer(self, index: int) -> Answer:
        return self.terms.answer(self._prompts[index // self.body.n])

    @property
    def _tells_logprobs(self) -> bool:
        return self.body.num_logprobs is not None

    def _logprobs(self, pieces: Sequence[Piece]) -> Fields | None:
        return self.shape.logprobs(pieces, self.terms.spell) if self._tells_logprobs else None

    def _pieces(self, pieces: Sequence[Piece]) -> Fields:
        return {"pieces": [_fate(piece) for piece in pieces]} if self.body.explain else {}

    def _finish_reason(self, generation: Generation, calls: int) -> str:
        reason = generation.stats.finish_reason
        return self.shape.called if calls and reason == "stop" else reason

    def _ignored(self) -> Fields:
        return {"ignored": list(self.terms.ignored)} if self.terms.ignored else {}

    def _envelope(self, kind: str, choices: Sequence[Mapping[str, Any]], **more: Any) -> Fields:
        return {
            "id": f"{self.shape.prefix}{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": f"fp_{self.terms.fingerprint}",
            "choices": choices,
            **more,
        }


def usage(generations: Sequence[Generation]) -> Fields:
    """Return the numbers of tokens of all texts together.

    Predictions are drafted tokens; accepted ones are part of the text, rejected ones are not.
    """
    stats = [generation.stats for generation in generations]
    prompt_tokens = sum(each.prompt_tokens for each in stats)
    new_tokens = sum(each.new_tokens for each in stats)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in stats)},
        "completion_tokens_details": {
            "accepted_prediction_tokens": sum(each.accepted_tokens for each in stats),
            "rejected_prediction_tokens": sum(each.rejections for each in stats),
        },
    }


def _route(route: Sequence[RouteStop]) -> Fields:
    return {"route": [asdict(stop) for stop in route]}


def _stats(stats: Stats) -> Fields:
    return {"stats": asdict(stats)}


def _fate(piece: Piece) -> Fields:
    """Return a token's fields without ``likely``, which OpenAI's API has under ``logprobs``."""
    fate = piece.as_dict()
    del fate["likely"]
    return fate
