"""Who takes part in one session, who sends to whom, and whom to blame for a fault: notes without
I/O."""

from collections.abc import Collection

from swarm.chain.stage import ChainLink
from swarm.wire.messages import Fault, FaultCode, Hop


class Members:
    """The peers whose messages a session takes."""

    def __init__(self) -> None:
        self._links: dict[str, ChainLink] = {}
        # who sends to whom; also of peers that have left, until others take the place
        self._next: dict[str, str] = {}

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._links

    def __getitem__(self, peer_id: str) -> ChainLink:
        return self._links[peer_id]

    @property
    def links(self) -> tuple[ChainLink, ...]:
        return tuple(self._links.values())

    def admit(self, link: ChainLink, onward: Hop | None) -> None:
        """Take a peer's messages from now on; it sends to ``onward``, or to us."""
        self._links[link.peer_id] = link
        self.leads(link, onward)

    def leads(self, link: ChainLink, onward: Hop | None) -> None:
        """Note which peer comes next to a peer: it may blame that one, and no other."""
        self._next.pop(link.peer_id, None)
        if onward is not None:
            self._next[link.peer_id] = onward.peer_id

    def leave(self, links: Collection[ChainLink]) -> None:
        """Take no messages any more from these peers."""
        for link in links:
            self._links.pop(link.peer_id, None)

    def to_blame(
        self, reporter: str, fault: Fault, chain: Collection[ChainLink]
    ) -> ChainLink | None:
        """Return the peer that a fault speaks against; None if that one has left.

        A peer answers for itself. It may blame the peer that it sends to; and the peer that sends
        to it, for hidden states that are not finite: that one need not be named, and is the one
        before it in the ``chain``.
        """
        blamed = reporter
        if fault.code is FaultCode.NOT_FINITE:
            before = next(
                (link.peer_id for link in chain if self._next.get(link.peer_id) == reporter),
                reporter,
            )
            if fault.peer in (None, before):
                blamed = before
        elif fault.peer is not None and self._next.get(reporter) == fault.peer:
            blamed = fault.peer
        return self._links.get(blamed)
