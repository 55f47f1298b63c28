"""Scoring a given text: hidden states and logits at every token, with nothing generated."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TypeVar

import torch
from torch import Tensor

from swarm.chain.retry import on_some_chain
from swarm.chain.router import Router
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.terms import MAX_ROWS, Terms
from swarm.client.cpu_threads import Executors
from swarm.client.models import ClientModels
from swarm.decoding.sampling import log_probabilities
from swarm.decoding.windows import windows
from swarm.outputs import Likely, Piece
from swarm.request import check_tokens
from swarm.wire.tensors import MAX_FRAME_TOKENS

TRIES = 3  # chains that may fail; what one has computed is lost with it

Scored = tuple[float | None, Sequence[tuple[int, float]]]  # of a token, and of the likeliest

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """The scores of a text of ``n`` tokens; row ``i`` comes from its tokens up to ``i``.

    Attributes:
        hidden_states: ``[n, hidden]`` float32, of the last layer behind the final norm.
        outputs: ``[n, hidden]`` float32, the same before the final norm.
        logits: ``[m, vocabulary]`` float32 of the last ``m`` tokens, as many as were asked for;
            each scores the token after it.
    """

    hidden_states: Tensor
    outputs: Tensor
    logits: Tensor


class Scorer:
    """Scores texts over chains that a `Router` chooses."""

    def __init__(self, models: ClientModels, threads: Executors, router: Router) -> None:
        self._models = models
        self._threads = threads
        self._router = router

    async def read(self, tokens: Sequence[int], logits_to_keep: int = 0) -> Reading:
        """Score ``tokens``.

        Args:
            logits_to_keep: how many of the last tokens' logits are computed; 0 is all.

        Raises:
            RequestError, PromptTooLong: if the model cannot take these tokens.
            NeedsHead: if the client has no head.
            MissingLayers, WrongWeights, OtherQuantization: if no chain is found.
            ChainBroken, ChainSilent: if `TRIES` chains failed, one after the other.
        """
        check_tokens(tokens, 0, self._models.checkpoint)
        head = self._models.own_head
        hidden = await on_some_chain(
            self._router, lambda chain: self._over(chain, tokens), tries=TRIES
        )
        normed = await self._compute(head.normed, hidden)
        rows = hidden[-logits_to_keep:] if logits_to_keep else hidden
        chunks = [
            await self._compute(head.logits, chunk) for chunk in torch.split(rows, MAX_FRAME_TOKENS)
        ]
        return Reading(normed, hidden, torch.cat(chunks))

    async def score(self, tokens: Sequence[int], likely: int = 0) -> list[Piece]:
        """Return every token of a text with its log probability; the first one has none.

        Args:
            likely: how many of the likeliest tokens to tell at each place.

        Raises what `read` raises.
        """
        check_tokens(tokens, 0, self._models.checkpoint)
        head = self._models.own_head
        hidden = await on_some_chain(
            self._router, lambda chain: self._over(chain, tokens), tries=TRIES
        )

        def scored(rows: Tensor, first: int) -> list[Scored]:
            following = tokens[first : first + len(rows)]
            logits = head.logits(rows)
            return [
                log_probabilities(row, token, likely)
                for row, token in zip(logits, following, strict=True)
            ]

        scores: list[Scored] = [(None, [])]
        for start in range(0, len(tokens) - 1, MAX_FRAME_TOKENS):
            rows = hidden[start : min(start + MAX_FRAME_TOKENS, len(tokens) - 1)]
            scores += await self._compute(partial(scored, first=start + 1), rows)
        return self._pieces(tokens, scores)

    def _pieces(self, tokens: Sequence[int], scores: Sequence[Scored]) -> list[Piece]:
        spell = self._models.lexicon.spell
        pieces = []
        offset = 0
        for token, (logprob, likeliest) in zip(tokens, scores, strict=True):
            likely = tuple(Likely(each, spell(each), score) for each, score in likeliest)
            text = spell(token)
            pieces.append(
                Piece(token, text, "target", logprob=logprob, likely=likely, offset=offset)
            )
            offset += len(text)
        return pieces

    async def _over(self, chain: Sequence[ChainLink], tokens: Sequence[int]) -> Tensor:
        """Final hidden states ``[n, hidden]`` before the final norm."""
        checkpoint, models = self._models.checkpoint, self._models
        session = ChainSession(
            chain,
            Terms(
                checkpoint.fingerprint,
                len(tokens),
                checkpoint.hidden_size,
                models.guard,
                rows=max(len(tokens), MAX_ROWS),  # all are sent before the first answer is read
            ),
        )
        async with session:
            asked = list(windows(tokens, repeat(MAX_FRAME_TOKENS)))
            for window in asked:
                await session.send(window)
            parts: dict[int, Tensor] = {}  # by the place where they begin
            while len(parts) < len(asked):
                for window, part in (await session.receive()).rows:
                    assert isinstance(part, Tensor)  # no head of a peer was asked
                    parts[window.position] = part.float()
        return torch.cat([parts[window.position] for window in asked])

    async def _compute(self, work: Callable[[Tensor], T], hidden: Tensor) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads.judging, work, hidden)
