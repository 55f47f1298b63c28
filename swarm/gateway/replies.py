"""The replies of OpenAI's API: whole or in chunks, as a chat or as a completion."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from swarm.gateway.logprobs import Spell, chat_logprobs, text_logprobs
from swarm.outputs import Generation, Piece, RouteStop, Stats


class Shape(Protocol):
    """What chats and completions do not have in common."""

    prefix: str  # of reply ids
    whole: str  # the ``object`` of a reply
    chunk: str  # the ``object`` of a chunk

    def choice(self, text: str) -> dict[str, Any]:
        """Return the fields that carry the text of a whole reply."""
        ...

    def part(self, text: str | None, first: bool) -> dict[str, Any]:
        """Return the fields that carry the text of a chunk, which is None in the last one."""
        ...

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]: ...


class ChatShape:
    prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def part(self, text: str | None, first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if first else {}
        return {"delta": role if text is None else {**role, "content": text}}

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]:
        return chat_logprobs(pieces, spell)


class TextShape:
    prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def part(self, text: str | None, first: bool) -> dict[str, Any]:
        return {"text": text or ""}

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]:
        return text_logprobs(pieces, spell)


@dataclass
class _SentChoice:
    """What the reader of a stream already has of one choice."""

    started: bool = False
    # peers and their layers, without the round trips, which change all the time
    chain: tuple[tuple[str, tuple[int, int]], ...] = ()


@dataclass
class Reply:
    """One reply, whole or in chunks.

    Beside OpenAI's fields it has ``swarm``: the route and the statistics of each text.

    Args:
        spell: returns the text of a token id.
        logprobs: whether to tell log probabilities.
        explain: whether to tell every token's fate.
        usage_chunk: whether the stream ends with a chunk of usage.
        ignored: fields of the request that had no effect.
    """

    shape: Shape
    model: str
    fingerprint: str
    spell: Spell
    logprobs: bool = False
    explain: bool = False
    usage_chunk: bool = False
    ignored: Sequence[str] = ()
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _sent: dict[int, _SentChoice] = field(default_factory=dict)

    def whole(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """Return the whole reply: all requested texts, in order."""
        choices = [
            {
                "index": index,
                **self.shape.choice(generation.text),
                "logprobs": self._logprobs(generation.pieces),
                "finish_reason": generation.stats.finish_reason,
            }
            for index, generation in enumerate(generations)
        ]
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

    def piece(
        self, index: int, piece: Piece, route: tuple[RouteStop, ...]
    ) -> dict[str, Any] | None:
        """Return the chunk for one token of a text, or None if the token shows nothing yet."""
        if not piece.text and not self.logprobs and not self.explain:
            return None
        sent = self._sent.setdefault(index, _SentChoice())
        swarm = self._pieces([piece])
        if not sent.started:
            swarm |= self._ignored()
        chain = tuple((stop.peer_id, stop.layers) for stop in route)
        if chain != sent.chain:
            swarm |= _route(route)
        choice = {
            "index": index,
            **self.shape.part(piece.text, not sent.started),
            "logprobs": self._logprobs([piece]),
            "finish_reason": None,
        }
        sent.started = True
        sent.chain = chain
        return self._chunk([choice], swarm)

    def end(self, index: int, generation: Generation) -> dict[str, Any]:
        """Return the last chunk of a text."""
        sent = self._sent.setdefault(index, _SentChoice())
        choice = {
            "index": index,
            **self.shape.part(None, not sent.started),
            "logprobs": None,
            "finish_reason": generation.stats.finish_reason,
        }
        swarm = {**_route(generation.route), **_stats(generation.stats)}
        if not sent.started:
            swarm |= self._ignored()
        return self._chunk([choice], swarm)

    def usage(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """Return the chunk that follows all texts if ``usage_chunk``."""
        return self._envelope(self.shape.chunk, [], usage=usage(generations))

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        return self.shape.logprobs(pieces, self.spell) if self.logprobs else None

    def _pieces(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        return {"pieces": [_fate(piece) for piece in pieces]} if self.explain else {}

    def _ignored(self) -> dict[str, Any]:
        return {"ignored": list(self.ignored)} if self.ignored else {}

    def _chunk(self, choices: Sequence[dict[str, Any]], swarm: dict[str, Any]) -> dict[str, Any]:
        more: dict[str, Any] = {"swarm": swarm} if swarm else {}
        if self.usage_chunk:
            more["usage"] = None
        return self._envelope(self.shape.chunk, choices, **more)

    def _envelope(
        self, kind: str, choices: Sequence[dict[str, Any]], **more: Any
    ) -> dict[str, Any]:
        return {
            "id": f"{self.shape.prefix}{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"fp_{self.fingerprint}",
            "choices": choices,
            **more,
        }


def usage(generations: Sequence[Generation]) -> dict[str, Any]:
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


def _route(route: Sequence[RouteStop]) -> dict[str, Any]:
    return {"route": [asdict(stop) for stop in route]}


def _stats(stats: Stats) -> dict[str, Any]:
    return {"stats": asdict(stats)}


def _fate(piece: Piece) -> dict[str, Any]:
    """Return a token's fields without ``likely``, which OpenAI's API has under ``logprobs``."""
    fate = piece.as_dict()
    del fate["likely"]
    return fate
