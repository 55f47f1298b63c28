"""Where a session's outputs go: to the next peer, whoever that is, or at the end of the chain back to the client."""

import logging

from peers.history import History
from peers.onward import OnwardLinks
from peers.scheduler import Computed
from swarm.network.link import Link, LinkClosed
from swarm.wire.messages import MAX_TEXT, Fault, FaultCode, Frame, Hop, Open, Reroute, Rerouted, Result
from swarm.wire.stream import BEGINNING, Placement, replayed
from swarm.wire.tensors import WireTensor

log = logging.getLogger(__name__)


class SessionFault(Exception):
    """The session cannot go on; tells its client why."""

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
    given what the lost one held.

    Args:
        opener: the client's link; faults and, at the end of the chain, results go there.
        links: to next peers.
        link: the one to the next peer, or None at the end of the chain.
        history: what has been sent on; None if it is not kept.
    """

    def __init__(
        self, opening: Open, opener: Link, links: OnwardLinks, link: Link | None, history: History | None
    ) -> None:
        self.opening, self.opener, self.link = opening, opener, link
        self.hop = opening.next
        self.passed = BEGINNING  # the last serial whose output was sent on
        self._links, self.history = links, history

    @property
    def lost(self) -> bool:
        """Whether there is nobody to send to, until a reroute."""
        return self.hop is not None and self.link is None

    async def send(self, frame: Frame, placement: Placement, computed: Computed, wanted: bool) -> None:
        """Send on what was computed for a frame, if it is still wanted.

        Raises:
            SessionFault: if the client is gone.
        """
        if self.history is not None:
            self.history.add(placement, computed.output)
        if not wanted or frame.replay == 0 or self.lost:
            return
        times = {
            "compute_ms": (*frame.compute_ms, computed.compute_ms),
            "queue_ms": (*frame.queue_ms, computed.queue_ms),
        }
        if self.link is not None:
            hidden = WireTensor.pack(computed.output)
            replay = None if frame.replay is None else frame.replay - 1
            await self._pass(frame.model_copy(update={"tokens": None, "hidden": hidden, "replay": replay, **times}))
        elif frame.replay is None:
            tail = WireTensor.pack(computed.output[frame.count - frame.tail :])
            await self._answer(
                Result(
                    session=frame.session, epoch=frame.epoch, first=frame.first, count=frame.count, hidden=tail, **times
                )
            )
        self.passed = frame.first + frame.count - 1

    async def lose(self, why: SessionFault) -> None:
        """The next peer failed: let the client know, who may name another one."""
        if self.link is None:
            return
        self._links.release(self.link)
        self.link = None
        await self.tell(why)

    async def reroute(self, reroute: Reroute, placement: Placement) -> None:
        """Go on to another peer, after giving it all that the placement keeps.

        Raises:
            SessionFault: if nothing was kept. A new peer that fails is reported as a lost one.
        """
        if self.history is None:
            raise SessionFault(FaultCode.NO_HISTORY, "this peer does not keep what it sent on")
        self.history.place(placement)
        if self.link is not None:
            self._links.release(self.link)
        self.link, self.hop = None, reroute.next
        try:
            self.link = await self._links.to(reroute.next)
        except LinkClosed as error:
            await self.tell(_unreachable(reroute.next, str(error)))
            return
        await self._replay(reroute, self.history)
        if not self.lost:
            self.passed = reroute.root
            await self._answer(Rerouted(session=reroute.session, epoch=reroute.epoch))

    async def tell(self, fault: SessionFault) -> None:
        """Tell the client, if it is still there."""
        try:
            await self.opener.send(fault.message(self.opening))
        except LinkClosed:
            log.debug("the client of a failed session is gone")

    def close(self) -> None:
        if self.link is not None:
            self._links.release(self.link)
            self.link = None

    async def _replay(self, reroute: Reroute, history: History) -> None:
        for first, rows, root, parents in replayed(reroute.root, history.length):
            await self._pass(
                Frame(
                    session=reroute.session,
                    epoch=reroute.epoch,
                    root=root,
                    first=first,
                    tail=0,
                    parents=parents,
                    hidden=WireTensor.pack(history.rows(rows)),
                    replay=reroute.replay,
                )
            )

    async def _pass(self, frame: Frame) -> None:
        link, hop = self.link, self.hop
        if link is None or hop is None:  # lost meanwhile
            return
        try:
            await link.send(frame)
        except LinkClosed as error:
            if self.link is link:
                await self.lose(_unreachable(hop, str(error)))

    async def _answer(self, message: Result | Rerouted) -> None:
        try:
            await self.opener.send(message)
        except LinkClosed:
            raise SessionFault(FaultCode.NO_SESSION, "the client is gone") from None


def _unreachable(hop: Hop, why: str) -> SessionFault:
    return SessionFault(FaultCode.NEXT_UNREACHABLE, why, hop.peer_id)
