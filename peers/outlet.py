"""Where a session's outputs go: to the next peer, whoever that is, or at the end of the chain back to the client."""

import logging

from torch import Tensor

from peers.history import History
from peers.onward import OnwardLinks
from peers.scheduler import Computed
from swarm.network.link import Link, LinkClosed
from swarm.wire.messages import MAX_TEXT, Fault, FaultCode, Frame, Open, Reroute, Rerouted, Result
from swarm.wire.stream import BEGINNING, Placement, replayed
from swarm.wire.tensors import WireTensor

log = logging.getLogger(__name__)


class SessionFault(Exception):
    """Something that a session's client has to know; where it is raised, the session cannot go on."""

    def __init__(self, code: FaultCode, text: str, peer: str | None = None, retry_ms: float | None = None) -> None:
        super().__init__(code, text, peer, retry_ms)
        self.code, self.text, self.peer, self.retry_ms = code, text, peer, retry_ms

    def message(self, opening: Open) -> Fault:
        """As it is said to the client."""
        text = self.text[:MAX_TEXT]
        return Fault(code=self.code, text=text, session=opening.session, peer=self.peer, retry_ms=self.retry_ms)


class Outlet:
    """One session's way on. Whoever made it calls `close`.

    A next peer that is lost does not end the session: its client is told, and may name another one, which is then
    given what the lost one held. All that is awaited here may be cancelled: what `keep` was told is not lost by it.

    Attributes:
        opener: the client's link; faults and, at the end of the chain, results go there.
        hop: the next peer; None at the end of the chain.
        link: the one to it; None at the end of the chain, and while the next peer is lost.
        history: what has been computed; None if it is not kept.
        passed: the last serial whose output has gone where it should.
    """

    def __init__(
        self, opening: Open, opener: Link, links: OnwardLinks, link: Link | None, history: History | None
    ) -> None:
        self.opening, self.opener, self.hop, self.link, self.history = opening, opener, opening.next, link, history
        self.passed = BEGINNING
        self._links = links

    @property
    def lost(self) -> bool:
        """Whether there is nobody to send to, until a reroute."""
        return self.hop is not None and self.link is None

    def keep(self, placement: Placement, output: Tensor | None = None) -> None:
        """Let the history follow the cache: what the placement keeps and, behind it, the output ``[tokens, hidden]``
        that was computed."""
        if self.history is not None:
            self.history.place(placement)
            if output is not None:
                self.history.add(output)

    async def send(self, frame: Frame, computed: Computed) -> None:
        """Send on what was computed for a frame, if there is somebody to send it to.

        Raises:
            SessionFault: if the client is gone.
        """
        times = {
            "compute_ms": (*frame.compute_ms, computed.compute_ms),
            "queue_ms": (*frame.queue_ms, computed.queue_ms),
        }
        if self.hop is not None:
            if frame.replay != 0:
                hidden = WireTensor.pack(computed.output)
                replay = None if frame.replay is None else frame.replay - 1
                await self._pass(frame.model_copy(update={"tokens": None, "hidden": hidden, "replay": replay, **times}))
        elif frame.replay is None:
            hidden = WireTensor.pack(computed.output[frame.count - frame.tail :])
            await self._answer(
                Result(
                    session=frame.session,
                    epoch=frame.epoch,
                    first=frame.first,
                    count=frame.count,
                    hidden=hidden,
                    **times,
                )
            )
        if not self.lost:
            self.passed = frame.first + frame.count - 1

    async def reroute(self, reroute: Reroute) -> None:
        """Go on to another peer, after giving it all that is kept; the session keeps its outputs. The client is told
        when that is done, or that the new peer failed.

        Raises:
            SessionFault: if the client is gone.
        """
        self.close()
        self.hop = reroute.next
        try:
            self.link = await self._links.to(reroute.next)
        except LinkClosed as error:
            await self.tell(SessionFault(FaultCode.NEXT_UNREACHABLE, str(error), reroute.next.peer_id))
            return
        await self._replay(reroute)
        if not self.lost:
            self.passed = reroute.root
            await self._answer(Rerouted(session=reroute.session, epoch=reroute.epoch))

    def lose(self, link: Link, code: FaultCode, text: str) -> SessionFault | None:
        """Send nothing more over ``link``. Returns what the client has to know; None if another one is in use."""
        if self.hop is None or self.link is not link:
            return None
        self.close()
        return SessionFault(code, text, self.hop.peer_id)

    async def tell(self, fault: SessionFault) -> None:
        """Tell the client, if it is still there."""
        try:
            await self.opener.send(fault.message(self.opening))
        except LinkClosed:
            log.debug("the client of a failed session is gone")

    def close(self) -> None:
        """Give the link back. May be called twice."""
        if self.link is not None:
            self._links.release(self.link)
            self.link = None

    async def _replay(self, reroute: Reroute) -> None:
        assert self.history is not None  # else the session takes no reroute
        for first, rows, root, parents in replayed(reroute.root, self.history.length):
            if self.lost:
                return
            await self._pass(
                Frame(
                    session=reroute.session,
                    epoch=reroute.epoch,
                    root=root,
                    first=first,
                    tail=0,
                    parents=parents,
                    hidden=WireTensor.pack(self.history.rows(rows)),
                    replay=reroute.replay,
                )
            )

    async def _pass(self, frame: Frame) -> None:
        link = self.link
        if link is None:
            return
        try:
            await link.send(frame)
        except LinkClosed as error:
            fault = self.lose(link, FaultCode.NEXT_UNREACHABLE, str(error))
            if fault is not None:
                await self.tell(fault)

    async def _answer(self, message: Result | Rerouted) -> None:
        try:
            await self.opener.send(message)
        except LinkClosed:
            raise SessionFault(FaultCode.NO_SESSION, "the client is gone") from None
