"""What an event of a session says against whom."""

from collections.abc import Collection

from swarm.chain.events import Event, Lost
from swarm.chain.members import ChainPeer, Members, P
from swarm.errors import ChainBroken
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault


def broken_by(peer: ChainPeer, why: str, code: FaultCode | None = None) -> ChainBroken:
    """Return the failure of a peer; ``code`` is what it reported itself."""
    return ChainBroken(peer.peer_id, peer.layers, why, code)


def failure(event: Event, members: Members[P], chain: Collection[P]) -> ChainBroken:
    """Return what an event says, which comes from a member.

    Args:
        chain: the peers of the session's chain.
    """
    peer = members[event.peer_id]
    if isinstance(event, Lost):
        return broken_by(peer, event.why)
    if isinstance(event.message, Fault):
        fault = event.message
        blamed = members.to_blame(event.peer_id, fault, chain) or peer
        code = fault.code if blamed == peer else None
        return broken_by(blamed, fault.text or fault.code.value, code)
    return broken_by(peer, f"it sent {type(event.message).__name__} out of turn")
