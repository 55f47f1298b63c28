"""Samples of a chain's answers to one text, kept for a later comparison with other chains."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swarm.decoding.candidates import CandidateRow
from swarm.routing.chain import Stage
from swarm.wire.candidates import HeadTerms
from swarm.wire.taps import TapTerms

MAX_SAMPLES = 64  # positions of a text whose hidden states are kept: 0.5 MB for a large model
MAX_PENDING = 512  # answered positions of which it is not known yet whether the text gets there

Answer = Tensor | CandidateRow  # at one position: ``[hidden]``, or what a peer's head told


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
        hidden: ``[len(positions), hidden]``, the chain's answers there, before the final norm;
            empty if it answered candidates.
        windows: how many answers of the chain these positions come from.
        stages: the chain at the end.
        gone: peers that were part of the chain before, also in an earlier text of the session.
        dtypes: in which all of these peers say they compute.
        max_tokens: for which sessions were opened.
        candidates: the answers of a last peer that holds the head, in place of hidden states.
        head: the terms on which it gave them.
        taps: the outputs of layers that its peers told besides: an audit is not to be told apart.
        answered_from: likewise the first position of the prompt that was answered for a drafter.
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
    candidates: tuple[CandidateRow, ...] = ()
    head: HeadTerms | None = None
    taps: TapTerms | None = None
    answered_from: int | None = None

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
        self._pending: list[tuple[AnsweredToken, Answer, int]] = []
        # Position, answer there, number of the window's answer.
        self._chosen: list[tuple[int, Answer, int]] = []
        self._seen = 0  # positions of the text
        self._answers = 0

    def answered(
        self, nodes: Sequence[AnsweredToken], rows: Tensor | Sequence[CandidateRow]
    ) -> None:
        """Take an answer at ``n`` nodes: hidden states ``[n, hidden]``, or candidates."""
        self._answers += 1
        for node, row in zip(nodes, rows, strict=True):
            self._pending.append((node, row, self._answers))
        self._pending = self._pending[-MAX_PENDING:]

    def settle(self) -> None:
        """Offer the tokens that became part of the text, and drop those that never will."""
        for node, row, answer in self._pending:
            if node.kept:
                self._offer(node.position, row, answer)
        self._pending = [each for each in self._pending if each[0].alive and not each[0].kept]

    def _offer(self, position: int, row: Answer, answer: int) -> None:
        self._seen += 1
        place = len(self._chosen) if len(self._chosen) < MAX_SAMPLES else self._choose(self._seen)
        if place < MAX_SAMPLES:
            # A copy: a view of the row would keep the whole answer.
            own = row.clone() if isinstance(row, Tensor) else row
            self._chosen[place : place + 1] = [(position, own, answer)]

    def evidence(
        self,
        tokens: Sequence[int],
        prompt_tokens: int,
        stages: Sequence[Stage],
        parties: Mapping[str, str],
        max_tokens: int,
        head: HeadTerms | None = None,
        taps: TapTerms | None = None,
        answered_from: int | None = None,
    ) -> Evidence | None:
        """Return the evidence of the finished text; None if no position was sampled.

        Args:
            stages: the chain at the end.
            parties: the dtype of every peer that ever had a part in the session, by its id.
            max_tokens: for which sessions were opened.
            head: the terms of candidates, if the last peer answered these.
            taps: the outputs of layers that were told.
            answered_from: the first position of the prompt that was answered for a drafter.
        """
        if not self._chosen:
            return None
        chosen = sorted(self._chosen, key=lambda each: each[0])
        hidden = [row.float() for _, row, _ in chosen if isinstance(row, Tensor)]
        return Evidence(
            tokens=tuple(tokens),
            prompt_tokens=prompt_tokens,
            positions=tuple(position for position, _, _ in chosen),
            hidden=torch.stack(hidden) if hidden else torch.empty(0, 0),
            windows=len({answer for _, _, answer in chosen}),
            stages=tuple(stages),
            gone=frozenset(parties.keys() - {stage.peer_id for stage in stages}),
            dtypes=frozenset(parties.values()),
            max_tokens=max_tokens,
            candidates=tuple(row for _, row, _ in chosen if not isinstance(row, Tensor)),
            head=head,
            taps=taps,
            answered_from=answered_from,
        )
