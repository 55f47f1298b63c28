"""Samples of a chain's answers to one text, kept for a later comparison with other chains."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swarm.routing.chain import Stage

MAX_SAMPLES = 64  # positions of a text whose hidden states are kept: 0.5 MB for a large model
MAX_PENDING = 512  # answered positions of which it is not known yet whether the text gets there


class AnsweredToken(Protocol):
    """A token that was answered.

    Attributes:
        kept: it is part of the text.
        alive: it is part of the text, or may still become one.
    """

    @property
    def position(self) -> int: ...
    @property
    def kept(self) -> bool: ...
    @property
    def alive(self) -> bool: ...


@dataclass(frozen=True)
class Evidence:
    """A text, and its chain's hidden states at some of its positions.

    Attributes:
        tokens: prompt and output.
        prompt_tokens: how many of them are the prompt.
        positions: the sampled positions, ascending.
        hidden: ``[len(positions), hidden]``, the chain's answers there, before the final norm.
        windows: how many answers of the chain these positions come from.
        stages: the chain at the end.
        gone: peers that were part of the chain before, also in an earlier text of the session.
        dtypes: in which all of these peers say they compute.
        max_tokens: for which sessions were opened.
    """

    tokens: tuple[int, ...]
    prompt_tokens: int
    positions: tuple[int, ...]
    hidden: Tensor
    windows: int
    stages: tuple[Stage, ...]
    gone: frozenset[str]
    dtypes: frozenset[str]
    max_tokens: int

    @property
    def replayed(self) -> tuple[int, ...]:
        """The tokens that a chain has to compute to answer all positions."""
        return self.tokens[: self.positions[-1] + 1]

    @property
    def peer_ids(self) -> frozenset[str]:
        """All peers that had a part in these answers."""
        return self.gone | {stage.peer_id for stage in self.stages}


class Samples:
    """A uniform sample of the positions of a text that grows (reservoir sampling, Vitter 1985).

    Args:
        choose: returns a random number from 0 to ``n - 1``.
    """

    def __init__(self, choose: Callable[[int], int] = random.randrange) -> None:
        self._choose = choose
        self._pending: list[tuple[AnsweredToken, Tensor, int]] = []
        # Position, hidden state, number of the answer.
        self._chosen: list[tuple[int, Tensor, int]] = []
        self._seen = 0  # positions of the text
        self._answers = 0

    def answered(self, nodes: Sequence[AnsweredToken], hidden: Tensor) -> None:
        """Take an answer: ``hidden`` ``[n, hidden]`` at ``n`` nodes."""
        self._answers += 1
        for node, row in zip(nodes, hidden, strict=True):
            self._pending.append((node, row, self._answers))
        self._pending = self._pending[-MAX_PENDING:]

    def settle(self) -> None:
        """Offer the tokens that became part of the text, and drop those that never will."""
        for node, row, answer in self._pending:
            if node.kept:
                self._offer(node.position, row, answer)
        self._pending = [each for each in self._pending if each[0].alive and not each[0].kept]

    def _offer(self, position: int, row: Tensor, answer: int) -> None:
        self._seen += 1
        place = len(self._chosen) if len(self._chosen) < MAX_SAMPLES else self._choose(self._seen)
        if place < MAX_SAMPLES:
            # A copy: a view of the row would keep the whole answer.
            self._chosen[place : place + 1] = [(position, row.clone(), answer)]

    def evidence(
        self,
        tokens: Sequence[int],
        prompt_tokens: int,
        stages: Sequence[Stage],
        parties: Mapping[str, str],
        max_tokens: int,
    ) -> Evidence | None:
        """Return the evidence of the finished text; None if no position was sampled.

        Args:
            stages: the chain at the end.
            parties: the dtype of every peer that ever had a part in the session, by its id.
            max_tokens: for which sessions were opened.
        """
        if not self._chosen:
            return None
        chosen = sorted(self._chosen, key=lambda each: each[0])
        return Evidence(
            tokens=tuple(tokens),
            prompt_tokens=prompt_tokens,
            positions=tuple(position for position, _, _ in chosen),
            hidden=torch.stack([row.float() for _, row, _ in chosen]),
            windows=len({answer for _, _, answer in chosen}),
            stages=tuple(stages),
            gone=frozenset(parties.keys() - {stage.peer_id for stage in stages}),
            dtypes=frozenset(parties.values()),
            max_tokens=max_tokens,
        )
