"""What a client keeps of the answers to one text, so that they can be compared with those of others
later."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swarm.routing.chain import Stage

# positions of a text whose hidden states are kept: half a megabyte for a large model
MAX_SAMPLES = 64
# positions that were answered, and of which it is not known whether the text gets there
MAX_PENDING = 512


class Answered(Protocol):
    """A token that was answered: is it ``kept`` in the text, or ``alive``, so that it may be
    yet?"""

    @property
    def position(self) -> int: ...
    @property
    def kept(self) -> bool: ...
    @property
    def alive(self) -> bool: ...


@dataclass(frozen=True)
class Evidence:
    """A text, and what its chain said at some of its positions.

    Attributes:
        tokens: prompt and output.
        prompt_tokens: how many of them are the prompt.
        positions: ascending; at each of them ``hidden`` ``[n, hidden]`` has what came, before the
            final norm.
        windows: answers of the chain that these positions come from.
        stages: the chain at the end.
        gone: peers that had a part before, be it in an earlier text of the same session.
        dtypes: in which all of these say to compute.
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
    def told(self) -> tuple[int, ...]:
        """The tokens that a chain has to be told to say something of the last position."""
        return self.tokens[: self.positions[-1] + 1]

    @property
    def peer_ids(self) -> frozenset[str]:
        """All peers whose work these answers rest on."""
        return self.gone | {stage.peer_id for stage in self.stages}


class Samples:
    """A fair sample of the positions of a text that grows: every one is as likely to be in it at
    the end.

    Args:
        choose: a random number from 0 to ``n - 1``.
    """

    def __init__(self, choose: Callable[[int], int] = random.randrange) -> None:
        self._choose = choose
        self._pending: list[tuple[Answered, Tensor, int]] = []
        # position, hidden state, number of the answer
        self._chosen: list[tuple[int, Tensor, int]] = []
        self._seen = self._answers = 0

    def answered(self, nodes: Sequence[Answered], hidden: Tensor) -> None:
        """An answer came: ``hidden`` ``[n, hidden]`` at these nodes."""
        self._answers += 1
        self._pending += [
            (node, row, self._answers) for node, row in zip(nodes, hidden, strict=True)
        ]
        self._pending = self._pending[-MAX_PENDING:]

    def settle(self) -> None:
        """Tokens were committed: take those that are part of the text, forget those that never will
        be."""
        for node, row, answer in self._pending:
            if node.kept:
                self._offer(node.position, row, answer)
        self._pending = [each for each in self._pending if each[0].alive and not each[0].kept]

    def _offer(self, position: int, row: Tensor, answer: int) -> None:
        self._seen += 1
        place = len(self._chosen) if len(self._chosen) < MAX_SAMPLES else self._choose(self._seen)
        if place < MAX_SAMPLES:
            # a view would keep its whole answer
            self._chosen[place : place + 1] = [(position, row.clone(), answer)]

    def evidence(
        self,
        tokens: Sequence[int],
        prompt_tokens: int,
        stages: Sequence[Stage],
        parties: Mapping[str, str],
        max_tokens: int,
    ) -> Evidence | None:
        """What is known of the finished text; None if nothing is.

        Args:
            stages: the chain at the end.
            parties: the dtype of every peer that ever had a part in the session.
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
