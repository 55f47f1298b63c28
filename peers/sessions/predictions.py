"""What one session tells of the model's predictions, if its peer holds the head."""

from collections import deque
from dataclasses import replace

import torch
from torch import Tensor

from peers.compute.history import History
from peers.compute.scheduler import Computed, Scheduler
from peers.faults import SessionFault
from swarm.wire.candidates import Candidates, HeadTerms
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Frame, Refine, Refined
from swarm.wire.token_tree import Placement, TokenTree

MAX_REFINEMENTS = 16  # that wait; a client asks for one at a time


class Predictions:
    """Candidates for what follows the tokens of a session, and more of them on request.

    Args:
        terms: on which candidates are told; None if the client gets hidden states.
        scheduler: owns the head.
    """

    def __init__(self, terms: HeadTerms | None, scheduler: Scheduler) -> None:
        self._terms = terms
        self._scheduler = scheduler
        self._asked: deque[Refine] = deque()

    def __len__(self) -> int:
        """How many refinements wait."""
        return len(self._asked)

    def change(self, terms: HeadTerms) -> None:
        """Tell candidates on other terms from now on.

        Raises `SessionFault` if the session tells none.
        """
        self._needed()
        self._terms = terms

    def ask(self, refine: Refine) -> None:
        """Note what `refine` is to answer.

        Raises `SessionFault` if the session tells no candidates, or too many requests wait.
        """
        self._needed()
        if len(self._asked) >= MAX_REFINEMENTS:
            raise SessionFault(FaultCode.BAD_MESSAGE, f"{MAX_REFINEMENTS} refinements wait already")
        self._asked.append(refine)

    async def behind(
        self, frame: Frame, placement: Placement, computed: Computed
    ) -> tuple[Computed, Candidates | None]:
        """Return what was computed for a frame, with the head's time, and the candidates that its
        answer carries; None if it carries hidden states, or is not answered.

        Raises `SessionFault` for an output that is not finite.
        """
        if self._terms is None or frame.replay is not None:
            return computed, None
        tail = slice(frame.count - frame.tail, frame.count)
        candidates, ms = await self._scheduler.candidates(
            _finite(computed.output[tail]),
            [position + 1 for position in placement.positions[tail]],
            self._terms,
        )
        return replace(computed, compute_ms=computed.compute_ms + ms), candidates

    async def refine(self, tree: TokenTree, history: History | None) -> Refined:
        """Answer the refinement that waits longest.

        Args:
            tree: of the tokens that the history holds, at least one row.

        Raises `SessionFault` if its token is not held.
        """
        refine = self._asked.popleft()
        terms = self._needed()
        place = tree.find(refine.serial)
        if place is None or history is None or place[0] >= history.length:
            raise SessionFault(FaultCode.BAD_MESSAGE, f"token {refine.serial} is not held here")
        row, position = place
        hidden = history.rows(slice(row, row + 1))
        if refine.count:
            fuller = terms.model_copy(update={"count": refine.count})
            candidates, _ = await self._scheduler.candidates(hidden, [position + 1], fuller)
        else:
            candidates = await self._scheduler.all_logits(hidden, terms)
        return Refined(session=refine.session, serial=refine.serial, candidates=candidates)

    def _needed(self) -> HeadTerms:
        if self._terms is None:
            raise SessionFault(
                FaultCode.BAD_MESSAGE, "the session was opened without terms for the head"
            )
        return self._terms


def _finite(output: Tensor) -> Tensor:
    """Return an output of these layers. Raise `SessionFault` if it is not finite."""
    if not bool(torch.isfinite(output).all()):
        raise SessionFault(FaultCode.INTERNAL, "what these layers computed is not finite")
    return output
