"""Who takes part in one session, who sends to whom, and whom to blame for a fault: notes without
I/O."""

from collections.abc import Collection
from typing import Generic, Protocol, TypeVar

from swarm.routing.chain import Stage
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Hop


class ChainPeer(Protocol):
    """A peer that serves one stage of a chain."""

    @property
    def stage(self) -> Stage: ...
    @property
    def peer_id(self) -> str: ...
    @property
    def layers(self) -> tuple[int, int]:
        """``[first, last)``."""
        ...

    @property
    def hop(self) -> Hop:
        """How the peer before it reaches it."""
        ...


P = TypeVar("P", bound=ChainPeer)


class Members(Generic[P]):
    """The peers whose messages a session takes."""

    def __init__(self) -> None:
        self._peers: dict[str, P] = {}
        # who sends to whom; also of peers that have left, until others take the place
        self._next: dict[str, str] = {}

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._peers

    def __getitem__(self, peer_id: str) -> P:
        return self._peers[peer_id]

    @property
    def peers(self) -> tuple[P, ...]:
        return tuple(self._peers.values())

    def admit(self, peer: P, onward: Hop | None) -> None:
        """Take a peer's messages from now on; it sends to ``onward``, or to the client."""
        self._peers[peer.peer_id] = peer
        self.follow(peer, onward)

    def follow(self, peer: P, onward: Hop | None) -> None:
        """Note who comes next after a peer: it may blame that one, and no other."""
        self._next.pop(peer.peer_id, None)
        if onward is not None:
            self._next[peer.peer_id] = onward.peer_id

    def leave(self, peers: Collection[P]) -> None:
        """Take no more messages from these peers."""
        for peer in peers:
            self._peers.pop(peer.peer_id, None)

    def to_blame(self, reporter: str, fault: Fault, chain: Collection[P]) -> P | None:
        """Return the peer that a fault speaks against; None if that peer has left.

        A peer answers for itself. It may blame the peer that it sends to; and the peer that sends
        to it, for hidden states that are not finite. That peer need not be named: it is the one
        before the reporter in the ``chain``.
        """
        blamed = reporter
        if fault.code is FaultCode.NOT_FINITE:
            before = next(
                (peer.peer_id for peer in chain if self._next.get(peer.peer_id) == reporter),
                reporter,
            )
            if fault.peer in (None, before):
                blamed = before
        elif fault.peer is not None and self._next.get(reporter) == fault.peer:
            blamed = fault.peer
        return self._peers.get(blamed)
