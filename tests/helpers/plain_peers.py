"""Peers of a chain as plain data, for the tests of what needs no connection to them."""

from dataclasses import dataclass

from swarm.routing.chain import Stage
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Hop


@dataclass(frozen=True)
class PlainPeer:
    """As much of a `ChainLink` as the protocol needs."""

    stage: Stage

    @property
    def peer_id(self) -> str:
        return self.stage.peer_id

    @property
    def layers(self) -> tuple[int, int]:
        return self.stage.first, self.stage.last

    @property
    def hop(self) -> Hop:
        return hop(self.peer_id)


def plain_peer(name: str, layer: int = 0) -> PlainPeer:
    """A peer that serves one layer."""
    return PlainPeer(Stage(name, layer, layer + 1))


def hop(name: str) -> Hop:
    return Hop.model_construct(peer_id=name, address="127.0.0.1:1", certificate="0" * 64)


def fault(code: FaultCode, peer: str | None = None) -> Fault:
    return Fault.model_construct(code=code, text="", session=b"0" * 16, peer=peer, retry_ms=None)
