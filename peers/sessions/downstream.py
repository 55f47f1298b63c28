"""Where a session's outputs go: to the next peer or, at the end of the chain, to the client."""

import asyncio
import logging
from typing import NamedTuple

from torch import Tensor

from peers.compute.history import History
from peers.compute.scheduler import Computed
from peers.counters import Counters
from peers.faults import SessionFault
from peers.sessions.next_links import NextLinks
from peers.sessions.replay import frames_as_held, replay_frames
from swarm.model.taps import Taps
from swarm.network.links.link import Link, LinkClosed
from swarm.network.links.replica_feed import ReplicaFeed
from swarm.wire.candidates import Candidates
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Frame,
    Hop,
    Open,
    Refined,
    Reroute,
    Rerouted,
    Result,
    Tapped,
)
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import BEGINNING, Placement, TokenTree, replayed

log = logging.getLogger(__name__)


class _StandingBy(NamedTuple):
    """A peer that stands by for the next one, and what it is fed by."""

    hop: Hop
    feed: ReplicaFeed[Link]


class Downstream:
    """Sends on the outputs of one session. Its owner calls `close`.

    A lost next peer does not end the session. Its client is told and may name another peer, which
    then gets what the lost one held. Every await here may be cancelled without losing what `keep`
    has recorded.

    Another peer may stand by for the next one. It gets the same outputs in the background, and
    the client does not learn of it if that fails.

    Attributes:
        opener: the client's link; faults and, at the end of the chain, results go there.
        hop: the next peer; None at the end of the chain.
        link: the one to it; None at the end of the chain, and while the next peer is lost.
        history: the outputs so far; None if they are not kept.
        passed: the last serial whose output was sent.
    """

    def __init__(
        self,
        opening: Open,
        opener: Link,
        links: NextLinks,
        link: Link | None,
        history: History | None,
        counters: Counters | None = None,
    ) -> None:
        self.opening = opening
        self.opener = opener
        self.hop = opening.next
        self.link = link
        self.history = history
        self.passed = opening.fork.count if opening.fork is not None else BEGINNING
        self._links = links
        self._counters = counters or Counters()
        self._standby: _StandingBy | None = None
        self._closing: set[asyncio.Task[None]] = set()  # feeds that are over

    @property
    def lost(self) -> bool:
        """Whether the next peer is lost, and no reroute has named another one."""
        return self.hop is not None and self.link is None

    def keep(self, placement: Placement, output: Tensor | None = None) -> None:
        """Let the history follow the cache.

        Args:
            placement: the rows that are kept.
            output: ``[tokens, hidden]``, appended behind them.
        """
        if self.history is not None:
            self.history.place(placement)
            if output is not None:
                self.history.add(output)

    async def send(
        self,
        frame: Frame,
        computed: Computed,
        candidates: Candidates | None = None,
        taps: Taps | None = None,
    ) -> None:
        """Send on what was computed for a frame, unless the next peer is lost.

        The next peer comes before the client, which waits for the one behind it. An answer comes
        after the taps: then the client has these when it drafts again.

        Args:
            candidates: what the client gets in place of hidden states, if it asked for that.
            taps: what it gets of outputs within the layers.

        Raises:
            SessionFault: if the client is gone, or the output must not be sent.
        """
        times = {
            "compute_ms": (*frame.compute_ms, computed.compute_ms),
            "queue_ms": (*frame.queue_ms, computed.queue_ms),
        }
        if self.hop is not None:
            replay = None if frame.replay is None else frame.replay - 1
            if replay != -1 or self._standby is not None:
                frame = frame.model_copy(
                    update={"tokens": None, "hidden": _packed(computed.output)}
                )
            # the peer that stands by goes first: so it holds everything that has been answered
            if self._standby is not None:
                again = {"tail": 0, "replay": 0, "compute_ms": (), "queue_ms": ()}
                self._standby.feed.put(frame.model_copy(update=again))
            if replay != -1:
                await self._pass(frame.model_copy(update={"replay": replay, **times}))
            await self._tell_taps(frame, taps)
        elif frame.replay is None:
            hidden = None
            if candidates is None:
                hidden = _packed(computed.output[frame.count - frame.tail :])
            await self._tell_taps(frame, taps)
            await self.answer(
                Result(
                    session=frame.session,
                    epoch=frame.epoch,
                    first=frame.first,
                    count=frame.count,
                    hidden=hidden,
                    candidates=candidates,
                    **times,
                )
            )
        if not self.lost:
            self.passed = frame.first + frame.count - 1

    async def reroute(self, reroute: Reroute) -> None:
        """Go on to another peer, after replaying to it everything that it does not hold already.

        The session keeps its outputs. The client is told when this is done, or that the new peer
        failed.

        Raises:
            SessionFault: if the client is gone.
        """
        self.let_go()
        self.hop = reroute.next
        try:
            self.link = await self._way_to(reroute)
        except LinkClosed as error:
            await self.tell(
                SessionFault(FaultCode.NEXT_UNREACHABLE, str(error), reroute.next.peer_id)
            )
            return
        if reroute.replay is not None:
            await self._replay(reroute, reroute.replay)
        if not self.lost:
            self.passed = reroute.root
            await self.answer(Rerouted(session=reroute.session, epoch=reroute.epoch))

    def mirror(self, hop: Hop | None, tree: TokenTree) -> None:
        """Let a peer stand by for the next one. Never waits.

        It gets everything that is kept, and then what is sent on. With None, or without a history,
        no peer stands by any more.

        Args:
            tree: the tree of the tokens that are kept.
        """
        self._stand_down()
        if hop is not None and self.history is not None:
            everything = frames_as_held(self.opening.session, tree, self.history)
            feed = ReplicaFeed(
                lambda: self._links.to(hop, self.opener), self._links.release, everything
            )
            self._standby = _StandingBy(hop, feed)

    def lose(self, link: Link, code: FaultCode, text: str) -> SessionFault | None:
        """Send nothing more over ``link``.

        Returns what the client has to know; None if it was not the link to the next peer.
        """
        if self._standby is not None and self._standby.feed.uses(link):
            self._stand_down()
        if self.hop is None or self.link is not link:
            return None
        self.let_go()
        return SessionFault(code, text, self.hop.peer_id)

    async def tell(self, fault: SessionFault) -> None:
        """Send a fault to the client, if it is still there."""
        self._counters.faults[fault.code] += 1
        try:
            await self.opener.send(fault.message(self.opening))
        except LinkClosed:
            log.debug("the client of a failed session is gone")

    def let_go(self) -> None:
        """Give the link to the next peer back. May be called twice."""
        if self.link is not None:
            self._links.release(self.link)
            self.link = None

    async def close(self) -> None:
        """Give all links back. May be called twice."""
        self.let_go()
        self._stand_down()
        if self._closing:
            await asyncio.wait(self._closing)

    def _stand_down(self) -> None:
        if self._standby is not None:
            closing = asyncio.create_task(self._standby.feed.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._standby = None

    async def _way_to(self, reroute: Reroute) -> Link:
        """Return a link to the next peer. Raise `LinkClosed`.

        If that peer stood by, it is the link of its feed, after all of the feed was sent.
        """
        hop = reroute.next
        if self._standby is not None and self._standby.hop == hop:
            try:
                if reroute.replay is None:
                    return await self._standby.feed.finish()
            finally:
                self._stand_down()
        return await self._links.to(hop, self.opener)

    async def _replay(self, reroute: Reroute, further: int) -> None:
        assert self.history is not None  # else the session takes no reroute
        chunks = replayed(reroute.root, self.history.length)
        for frame in replay_frames(
            reroute.session, reroute.epoch, chunks, self.history.rows, further
        ):
            if self.lost:
                return
            await self._pass(frame)

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

    async def _tell_taps(self, frame: Frame, taps: Taps | None) -> None:
        if taps is None:
            return
        first = frame.first + frame.count - frame.tail
        layers = taps.terms.layers
        for part in taps.outputs:
            await self.answer(
                Tapped(session=frame.session, first=first, layers=layers, outputs=part)
            )
            first += part.tokens

    async def answer(self, message: Result | Tapped | Rerouted | Refined) -> None:
        """Send an answer to the client. Raise `SessionFault` if it is gone."""
        try:
            await self.opener.send(message)
        except LinkClosed:
            raise SessionFault(FaultCode.NO_SESSION, "the client is gone") from None


def _packed(output: Tensor) -> WireTensor:
    """Pack an output ``[tokens, hidden]``.

    Raises `SessionFault` if it is not finite, for which the next peer would rightly blame us.
    """
    packed = WireTensor.pack(output)
    if not packed.is_finite:
        raise SessionFault(FaultCode.INTERNAL, "what these layers computed is not finite")
    return packed
