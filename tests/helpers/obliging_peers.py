"""Peers without links, in virtual time: they follow the protocol until they die or hang.

They compute nothing. A peer remembers which serials it was sent and has sent on, refuses frames of
senders that it was not told to accept, and answers a client as a real one does.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from swarm.chain.stage import ChainLink
from swarm.network.links.arrivals import Arrival, ArrivalQueue
from swarm.network.links.link import LinkClosed
from swarm.routing.chain import Stage
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    AcceptFrom,
    Accepting,
    Close,
    Fault,
    Frame,
    Hop,
    Mirror,
    Open,
    Opened,
    Probe,
    Progress,
    Reroute,
    Rerouted,
    Result,
    WireMessage,
)
from swarm.wire.tensors import WireTensor

WIDTH = 4
DELAY_S = 0.01  # of every message


@dataclass
class Served:
    """A session at one peer."""

    client: "PlainConnection"
    onward: Hop | None
    accepts: tuple[str, ...]
    epoch: int = 0
    begun: int = 0  # the last serial that came, and the last one that was sent on
    passed: int = 0
    mirror: Hop | None = None
    cut_off: bool = False  # the next peer is lost, and no other was named


class PlainConnection:
    """A client's connection to a peer, as `Connection` is one."""

    def __init__(self, peer: "ObligingPeer") -> None:
        self.peer_id = peer.name
        self.link = SimpleNamespace(address="127.0.0.1:1")
        self.rtt_ms = 2e3 * DELAY_S
        self.closed = False
        self._peer = peer
        self._inboxes: dict[bytes, ArrivalQueue] = {}

    def subscribe(self, session: bytes, inbox: ArrivalQueue) -> None:
        self._inboxes[session] = inbox
        if self.closed:
            self._lose(inbox)

    def unsubscribe(self, session: bytes) -> None:
        self._inboxes.pop(session, None)

    async def send(self, message: WireMessage) -> int:
        if self.closed:
            raise LinkClosed("127.0.0.1:1", "the other side left")
        self._peer.later(lambda: self._peer.hear(self, message))
        return 1

    def deliver(self, message: Any) -> None:
        """A message of the peer, which is on its way from now on."""
        self._peer.later(lambda: self._arrive(message))

    def end(self) -> None:
        self.closed = True
        for inbox in self._inboxes.values():
            self._lose(inbox)

    def _arrive(self, message: Any) -> None:
        inbox = self._inboxes.get(message.session)
        if inbox is not None and not self.closed:
            inbox.put_nowait(Arrival(self.peer_id, message, self._peer.loop.time(), 1))

    def _lose(self, inbox: ArrivalQueue) -> None:
        lost = LinkClosed("127.0.0.1:1", "the other side left")
        inbox.put_nowait(Arrival(self.peer_id, lost, self._peer.loop.time()))


@dataclass
class ObligingPeer:
    """Serves any layers.

    Attributes:
        failed: it has died or hangs.
        refused: frames of senders that it was not to accept.
    """

    name: str
    others: dict[str, "ObligingPeer"]
    loop: asyncio.AbstractEventLoop
    served: dict[bytes, Served] = field(default_factory=dict)
    connections: list[PlainConnection] = field(default_factory=list)
    dead: bool = False
    hangs: bool = False
    refused: int = 0

    @property
    def failed(self) -> bool:
        return self.dead or self.hangs

    def link(self, first: int, last: int) -> ChainLink:
        """A new connection of a client to it, for these layers."""
        connection: Any = PlainConnection(self)
        record: Any = SimpleNamespace(peer_id=self.name, certificate="0" * 64, dtype="float32")
        self.connections.append(connection)
        if self.dead:
            connection.closed = True
        return ChainLink(Stage(self.name, first, last), record, connection)

    def die(self) -> None:
        """Vanish; clients and the peers before it notice."""
        self.dead = True
        self.served.clear()
        for connection in self.connections:
            connection.end()
        for other in self.others.values():
            other.later(lambda other=other: other.loses(self.name))  # type: ignore[misc]

    def later(self, work: Any) -> None:
        self.loop.call_later(DELAY_S, work)

    def loses(self, name: str) -> None:
        for session, served in self.served.items():
            if served.onward is not None and served.onward.peer_id == name:
                self._lose_next(session, served)

    def hear(self, client: PlainConnection, message: Any) -> None:
        """What a client says."""
        if self.dead:
            return
        session = message.session
        if isinstance(message, Open):
            accepts = () if message.previous is None else (message.previous,)
            self.served[session] = Served(client, message.next, accepts, message.epoch)
            client.deliver(Opened(session=session))
            self._check_next(session)
            return
        served = self.served.get(session)
        if served is None:
            if not isinstance(message, Close):
                fault = Fault(code=FaultCode.NO_SESSION, text="", session=session)
                client.deliver(fault)
            return
        match message:
            case Frame():
                self.frame(served, message)
            case AcceptFrom():
                served.accepts = message.speakers
                client.deliver(Accepting(session=session, speakers=message.speakers))
            case Mirror():
                served.mirror = message.to
                self._catch_up(served, session, message.to, 0)
            case Reroute():
                served.onward = message.next
                served.epoch = message.epoch
                served.cut_off = False
                if message.replay is not None:
                    self._catch_up(served, session, message.next, message.replay)
                client.deliver(Rerouted(session=session, epoch=message.epoch))
                self._check_next(session)
            case Probe():
                progress = Progress(
                    session=session, epoch=served.epoch, last=served.begun, passed=served.passed
                )
                client.deliver(progress)
            case Close():
                del self.served[session]

    def frame(self, served: Served, frame: Frame) -> None:
        """Compute a frame and send it on."""
        served.begun = max(served.begun, frame.first + frame.count - 1)
        if self.hangs or served.cut_off:
            return
        if frame.replay is None:
            self._to(served.mirror, frame.model_copy(update={"replay": 0, "tail": 0}))
        onward = frame.replay is None or frame.replay > 0
        if served.onward is not None and onward:
            further = frame.replay and frame.replay - 1
            self._to(served.onward, frame.model_copy(update={"replay": further}))
        elif frame.replay is None:
            served.client.deliver(answer_to(frame))
        served.passed = max(served.passed, served.begun)

    def from_peer(self, sender: str, frame: Frame) -> None:
        served = self.served.get(frame.session)
        if served is None or self.dead:
            return
        if sender not in served.accepts:
            self.refused += 1
            return
        self.frame(served, frame)

    def _to(self, hop: Hop | None, frame: Frame) -> None:
        if hop is not None:
            other = self.others[hop.peer_id]
            self.later(lambda: other.from_peer(self.name, frame))

    def _catch_up(self, served: Served, session: bytes, to: Hop | None, further: int) -> None:
        """Tell another peer how far it has come."""
        if to is not None and served.begun and not self.hangs:
            again = Frame(
                session=session,
                epoch=served.epoch,
                first=served.begun,
                tail=0,
                tokens=(3,),
                replay=further,
            )
            self._to(to, again)

    def _check_next(self, session: bytes) -> None:
        served = self.served[session]
        if served.onward is not None and self.others[served.onward.peer_id].dead:
            self.later(lambda: self._lose_next(session, served))

    def _lose_next(self, session: bytes, served: Served) -> None:
        onward = served.onward
        if self.dead or onward is None or not self.others[onward.peer_id].dead:
            return
        served.cut_off = True
        fault = Fault(
            code=FaultCode.NEXT_UNREACHABLE, text="gone", session=session, peer=onward.peer_id
        )
        served.client.deliver(fault)


def answer_to(frame: Frame) -> Result:
    hidden = torch.full((frame.tail, WIDTH), float(frame.first))
    return Result(
        session=frame.session,
        epoch=frame.epoch,
        first=frame.first,
        count=frame.count,
        hidden=WireTensor.pack(hidden),
    )


def obliging_peers(count: int) -> Iterator[ObligingPeer]:
    """That know each other; on the running event loop."""
    peers: dict[str, ObligingPeer] = {}
    loop = asyncio.get_running_loop()
    for number in range(count):
        name = f"peer{number:08}"
        peers[name] = ObligingPeer(name, peers, loop)
    return iter(peers.values())
