"""What is answered: a whole reply, or its chunks, as chat or as completion."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from swarm.gateway.logprobs import Spell, chat_logprobs, text_logprobs
from swarm.outputs import Generation, Piece, RouteStop, Stats


class Shape(Protocol):
    """What chats and completions do not have in common."""

    prefix: str  # of ids
    whole: str  # name of a reply
    chunk: str  # and of a part of one

    def choice(self, text: str) -> dict[str, Any]:
        """The text of a whole reply."""
        ...

    def part(self, text: str | None, first: bool) -> dict[str, Any]:
        """The text of a chunk; None in the last one."""
        ...

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]: ...


class ChatShape:
    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def part(self, text: str | None, first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if first else {}
        return {"delta": role if text is None else {**role, "content": text}}

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]:
        return chat_logprobs(pieces, spell)


class TextShape:
    prefix, whole, chunk = "cmpl-", "text_completion", "text_completion"

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def part(self, text: str | None, first: bool) -> dict[str, Any]:
        return {"text": text or ""}

    def logprobs(self, pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]:
        return text_logprobs(pieces, spell)


@dataclass
class _Told:
    """What a reader knows of one choice."""

    anything: bool = False
    # peers and their layers; round trips change all the time
    chain: tuple[tuple[str, tuple[int, int]], ...] = ()


@dataclass
class Reply:
    """One reply, whole or in chunks.

    Beside OpenAI's fields it has ``swarm``: the route, and what the text took.

    Args:
        spell: a token of the model as text.
        logprobs: they were asked for.
        explain: every token's fate was asked for.
        usage_chunk: the stream ends with a chunk of usage.
    """

    shape: Shape
    model: str
    fingerprint: str
    spell: Spell
    logprobs: bool = False
    explain: bool = False
    usage_chunk: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _told: dict[int, _Told] = field(default_factory=dict)

    def whole(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """The reply, of all texts that were asked for, in order."""
        choices = [
            {
                "index": index,
                **self.shape.choice(generation.text),
                "logprobs": self.shape.logprobs(generation.pieces, self.spell)
                if self.logprobs
                else None,
                "finish_reason": generation.stats.finish_reason,
            }
            for index, generation in enumerate(generations)
        ]
        told = [
            {
                **_route(generation.route),
                **_stats(generation.stats),
                **(
                    {"pieces": [_fate(piece) for piece in generation.pieces]}
                    if self.explain
                    else {}
                ),
            }
            for generation in generations
        ]
        return self._envelope(self.shape.whole, choices, usage=usage(generations), swarm=told)

    def piece(
        self, index: int, piece: Piece, route: tuple[RouteStop, ...]
    ) -> dict[str, Any] | None:
        """The chunk for one token of a text, or None if there is nothing to tell yet."""
        if not piece.text and not self.logprobs and not self.explain:
            return None
        told = self._told.setdefault(index, _Told())
        swarm: dict[str, Any] = {"pieces": [_fate(piece)]} if self.explain else {}
        chain = tuple((stop.peer_id, stop.layers) for stop in route)
        if chain != told.chain:
            swarm |= _route(route)
        choice = {
            "index": index,
            **self.shape.part(piece.text, not told.anything),
            "logprobs": self.shape.logprobs([piece], self.spell) if self.logprobs else None,
            "finish_reason": None,
        }
        told.anything, told.chain = True, chain
        return self._chunk([choice], swarm)

    def end(self, index: int, generation: Generation) -> dict[str, Any]:
        """The last chunk of a text."""
        told = self._told.setdefault(index, _Told())
        choice = {
            "index": index,
            **self.shape.part(None, not told.anything),
            "logprobs": None,
            "finish_reason": generation.stats.finish_reason,
        }
        return self._chunk([choice], {**_route(generation.route), **_stats(generation.stats)})

    def usage(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """The chunk after all texts, if it was asked for."""
        return self._envelope(self.shape.chunk, [], usage=usage(generations))

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
    """Tokens of all texts.

    Predictions are drafted tokens; those accepted are part of the text, others are not.
    """
    stats = [generation.stats for generation in generations]
    read, written = (
        sum(each.prompt_tokens for each in stats),
        sum(each.new_tokens for each in stats),
    )
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
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
    """All that is known of a token, but not the likeliest ones: those are told where OpenAI's
    interface has them."""
    fate = piece.as_dict()
    del fate["likely"]
    return fate
