"""Log probabilities of tokens in the two shapes of OpenAI's API."""

from collections.abc import Callable, Sequence
from typing import Any

from swarm.client.detokenizer import REPLACEMENT
from swarm.outputs import Piece

Spell = Callable[[int], str]  # a token id as text


def chat_logprobs(pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]:
    """Return the ``logprobs`` of a chat: one object a token, with the likeliest tokens in it."""
    content = [
        {
            **_entry(spell(piece.token_id), piece.logprob),
            "top_logprobs": [_entry(likely.text, likely.logprob) for likely in piece.likely],
        }
        for piece in pieces
    ]
    return {"content": content, "refusal": None}


def text_logprobs(pieces: Sequence[Piece], spell: Spell) -> dict[str, Any]:
    """Return the ``logprobs`` of a completion: parallel lists with one entry a token."""
    return {
        "tokens": [spell(piece.token_id) for piece in pieces],
        "token_logprobs": [piece.logprob for piece in pieces],
        "top_logprobs": [
            {likely.text: likely.logprob for likely in piece.likely} for piece in pieces
        ],
        "text_offset": [piece.offset for piece in pieces],
    }


def _entry(token: str, logprob: float | None) -> dict[str, Any]:
    """Return one token's entry; ``bytes`` is null for a token that is not whole characters."""
    whole = REPLACEMENT not in token
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()) if whole else None}
