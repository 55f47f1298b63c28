"""The pieces of a text: what a user is told of each of its tokens."""

from typing import NamedTuple

from torch import Tensor

from swarm.decoding.rules.lexicon import Lexicon
from swarm.decoding.rules.rule import Decision
from swarm.decoding.sampling import log_probabilities
from swarm.outputs import Likely, Piece
from swarm.request import Request


class Written(NamedTuple):
    """The text of a committed token, and the number of characters of text before it."""

    offset: int
    text: str


def piece_of(decision: Decision, written: Written, request: Request, lexicon: Lexicon) -> Piece:
    """Return the piece of one committed token, with what the request asks for."""
    choice = decision.token if decision.choice is None else decision.choice
    lost = choice if decision.kept else decision.drafted
    logprob, likely = _likelihood(decision, request.logprobs, lexicon)
    return Piece(
        token_id=decision.token,
        text=written.text,
        offset=written.offset,
        origin=decision.origin,
        drafted_id=decision.drafted,
        choice_id=choice,
        instead_of="" if lost in (None, decision.token) else lexicon.spell(lost),
        deficit_nats=decision.deficit_nats,
        key=decision.key,
        reason=decision.reason,
        logprob=logprob,
        likely=likely,
        logits=_own(decision.raw) if request.logits else None,
        hidden_state=_own(decision.hidden) if request.hidden_states else None,
    )


def _likelihood(
    decision: Decision, count: int | None, lexicon: Lexicon
) -> tuple[float | None, tuple[Likely, ...]]:
    """Return the log probability of a token, and the ``count`` likeliest ones; None asks for
    neither."""
    if count is None or decision.logits is None:
        return None, ()
    logprob, likeliest = log_probabilities(decision.logits, decision.token, count)
    return logprob, tuple(Likely(token, lexicon.spell(token), each) for token, each in likeliest)


def _own(row: Tensor | None) -> Tensor | None:
    """Copy a tensor: a view would keep its whole answer in memory."""
    return None if row is None else row.clone()
