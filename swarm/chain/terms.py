"""What a session is opened for, and whether the chain's answers can be what was asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.audit.guard import Guard
from swarm.chain.members import ChainPeer, P
from swarm.decoding.candidates import CandidateRow, contradiction, objection, read_candidates
from swarm.errors import ChainBroken, Implausible
from swarm.wire.candidates import Candidates, HeadTerms
from swarm.wire.messages import Refined, Result, Tapped
from swarm.wire.taps import TapTerms
from swarm.wire.tensors import FLOAT_BYTES, MAX_HIDDEN_SIZE

# Positions whose answers may wait to be read: those of a prompt's end, and several times those that
# a text is ahead.
MAX_ROWS = 2048
ROW_BYTES = 256  # of one row's message, beside its values
REPLY_BYTES = 1 << 23  # of messages of other kinds: a refined prediction is the longest


@dataclass(frozen=True)
class Terms:
    """What a session is opened for.

    Attributes:
        fingerprint: of the model.
        max_tokens: that every peer reserves room for.
        hidden_size: the model's width; an answer of another width is a failure of the peer that
            sent it. None if it is not known.
        guard: an answer that is not possible for this model is a failure of the chain.
        head: on which terms the last peer answers candidates; None for hidden states.
        vocabulary: how many tokens candidates are chosen from.
        taps: which outputs of layers the peers tell besides.
        rows: positions whose answers may wait to be read.
    """

    fingerprint: str
    max_tokens: int
    hidden_size: int | None = None
    guard: Guard | None = None
    head: HeadTerms | None = None
    vocabulary: int = 0
    taps: TapTerms | None = None
    rows: int = MAX_ROWS

    @property
    def most_waiting_bytes(self) -> int:
        """How many bytes of messages may wait to be read.

        At 4,096 dimensions that is 40 MiB, and with three taps in 8 bits 66 MiB.
        """
        hidden = self.hidden_size or MAX_HIDDEN_SIZE
        row = ROW_BYTES + FLOAT_BYTES * hidden
        if self.taps is not None:
            tap = ROW_BYTES + (1 if self.taps.float8 else FLOAT_BYTES) * hidden
            row += tap * len(self.taps.layers)
        return REPLY_BYTES + self.rows * row

    def taps_of(self, peer: ChainPeer) -> TapTerms | None:
        """Return which outputs one peer tells."""
        return None if self.taps is None else self.taps.within(peer.stage.first, peer.stage.last)

    def changed(
        self, before: "Terms", chain: Sequence[P], taps: Callable[[P], bool]
    ) -> Iterator[tuple[P, HeadTerms | None, TapTerms | None]]:
        """Yield each peer of a chain to which other terms applied before, and its own ones now.

        Args:
            taps: whether a peer tells outputs of its layers on request.
        """
        for peer in chain:
            last, able = peer is chain[-1], taps(peer)
            own = self.head if last else None, self.taps_of(peer) if able else None
            if own != (before.head if last else None, before.taps_of(peer) if able else None):
                yield peer, *own

    def check_kind(self, result: Result, last: ChainPeer) -> None:
        """Raise `ChainBroken` if a result is not of the kind and width that were asked for."""
        if (result.candidates is None) == (self.head is not None):
            asked = "hidden states" if self.head is None else "candidates"
            raise _broken(last, f"it was to answer {asked}, and did not")
        if result.hidden is not None and self.hidden_size not in (None, result.hidden.hidden):
            wide = f"its answer is {result.hidden.hidden} wide, not {self.hidden_size}"
            raise _broken(last, wide)

    def hidden_states(self, result: Result, last: ChainPeer) -> Tensor:
        """Return the hidden states ``[tail, hidden]`` of a result that `check_kind` let pass.

        Raises:
            Implausible: if they cannot be an answer of this model.
        """
        assert result.hidden is not None  # checked before
        hidden = result.hidden.unpack()
        if self.guard is not None and (why := self.guard.objection(hidden)):
            raise _implausible(last, why)
        return hidden

    def outputs(self, tapped: Tapped, peer: ChainPeer) -> Tensor:
        """Return the outputs of layers ``[tokens, layers, hidden]`` that a peer tells, in float32.

        Nothing is judged by them: what a peer invents costs speed alone.

        Raises:
            ChainBroken: if they are not those that were asked for, or not finite.
        """
        asked, told = self.taps_of(peer), tapped.outputs
        if asked is None or tapped.layers != asked.layers:
            raise _broken(peer, "it told outputs of layers that it was not asked for")
        if self.hidden_size not in (None, told.hidden):
            wide = f"outputs of its layers are {told.hidden} wide, not {self.hidden_size}"
            raise _broken(peer, wide)
        outputs = told.unpack()
        if not bool(torch.isfinite(outputs).all()):
            raise _broken(peer, "outputs of its layers are not finite")
        return outputs

    def candidates(self, answer: Candidates, last: ChainPeer, count: int = 0) -> list[CandidateRow]:
        """Return the rows of the last peer's candidates.

        Args:
            count: how many were asked for by a `Refine`; 0 for as many as the terms say.

        Raises:
            Implausible: if they cannot be what the terms ask for.
        """
        assert self.head is not None  # else there are no candidates
        head = self.head.model_copy(update={"count": count} if count else {})
        rows = read_candidates(answer, head, self.vocabulary)
        for row in rows:
            if why := objection(row, head):
                raise _implausible(last, why)
        return rows

    def refined(
        self, refined: Refined, serial: int, count: int, told: CandidateRow, last: ChainPeer
    ) -> CandidateRow:
        """Return the row that the last peer's reply to a `Refine` carries.

        Args:
            told: what the peer told of this prediction before.

        Raises:
            Implausible: if it cannot be that.
        """
        rows = self.candidates(refined.candidates, last, count)
        if refined.serial != serial or len(rows) != 1:
            raise _implausible(last, "it refined another prediction")
        if not count and len(rows[0].tokens) != self.vocabulary:
            raise _implausible(last, "it did not tell the logits of all tokens")
        if why := contradiction(told, rows[0]):
            raise _implausible(last, why)
        return rows[0]


def _broken(peer: ChainPeer, why: str) -> ChainBroken:
    return ChainBroken(peer.peer_id, peer.layers, why)


def _implausible(peer: ChainPeer, why: str) -> Implausible:
    return Implausible(peer.peer_id, peer.layers, why)
