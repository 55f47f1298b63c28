"""One session on one peer: takes frames, has them computed, and sends the outputs on."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from peers.compute.cache_budget import Reservation
from peers.compute.history import History
from peers.compute.scheduler import Computed, Scheduler
from peers.faults import SessionFault
from peers.sessions.checks import check_frame, check_place
from peers.sessions.downstream import Downstream
from peers.sessions.forks import Forks
from peers.sessions.inbox import Inbox, InboxFull, inputs_of
from peers.sessions.limits import SessionLimits
from peers.sessions.predictions import Predictions
from swarm.model.cache import KVCache
from swarm.model.taps import Taps
from swarm.model.work import Work
from swarm.network.links.link import Link
from swarm.util.tasks import end
from swarm.wire.faults import FaultCode
from swarm.wire.forks import Fork
from swarm.wire.messages import (
    AcceptFrom,
    Accepting,
    ChangeTerms,
    Frame,
    Mirror,
    Open,
    Progress,
    Refine,
    Reroute,
    TermsChanged,
)
from swarm.wire.token_tree import MAX_TAIL, OutOfOrder, TokenTree

log = logging.getLogger(__name__)


class PeerSession:
    """Layers ``[first, last)`` for one client. To the scheduler it is a `ComputeJob`.

    While its next peer is lost, a session takes frames and computes only replayed ones: the peer
    that takes the lost one's place needs all of these.

    Args:
        opening: the message that opened it. The cache, and the history, hold what it begins with.
        downstream: where outputs go; the session closes it.
        reserved: its part of the cache budget; the registry gives it back.
        failed: called once, by the session's own task, when the session cannot go on.
        clock: seconds, monotonic.

    Attributes:
        since: when it was opened, on ``clock``.
        heard_at: when its last frame came, on ``clock``.
        predictions: what it tells in place of hidden states, if the client asked for that.
        taps: which outputs of layers it tells besides.
    """

    def __init__(
        self,
        opening: Open,
        downstream: Downstream,
        reserved: Reservation,
        cache: KVCache,
        scheduler: Scheduler,
        limits: SessionLimits,
        failed: Callable[["PeerSession", SessionFault], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.opening = opening
        self.downstream = downstream
        self.reserved = reserved
        self.tree = TokenTree() if opening.fork is None else TokenTree.holding(opening.fork.count)
        self.tree.cancel(opening.epoch)
        self._senders = frozenset(filter(None, (opening.previous,)))
        self._cache = cache
        self._scheduler = scheduler
        self._limits = limits
        self._failed = failed
        self._clock = clock
        self._inbox = Inbox(opening.max_tokens)
        self._arrived = asyncio.Event()
        self._reroute: Reroute | None = None  # not followed yet
        self._reroutes = 0  # followed so far
        self._queued = False  # waits for a turn of the scheduler, or has it
        self._mirror: Mirror | None = None  # not begun yet
        self.predictions = Predictions(opening.head, scheduler)
        self.taps = opening.taps
        self._forks = Forks(scheduler)
        self._passing: asyncio.Task[None] | None = None  # sends to others, which may take time
        self.since = self.heard_at = clock()
        self._task = asyncio.create_task(self._run())

    @property
    def layers(self) -> tuple[int, int]:
        return self.opening.first, self.opening.last

    def obeys(self, link: Link) -> bool:
        """Whether a link may give commands: only the one that opened the session."""
        return link is self.downstream.opener

    def takes_frames_from(self, link: Link) -> bool:
        """Whether a link may send frames: the client's, or that of a peer that it has named."""
        return self.obeys(link) or link.peer_id in self._senders

    def accept_from(self, message: AcceptFrom) -> Accepting:
        """Take frames from other peers from now on; return the answer."""
        self._senders = frozenset(message.speakers)
        return Accepting(session=message.session, speakers=message.speakers)

    def accept(self, frame: Frame) -> None:
        """Put a frame in the inbox; never waits.

        Raises `SessionFault` if it does not belong here.
        """
        if self.tree.stale(frame.epoch, frame.replay is not None):
            return
        check_frame(frame, self.opening.first, self._scheduler.span)
        self.heard_at = self._clock()
        self.cancel(frame.epoch, replays=False)
        try:
            self._inbox.put(frame)
        except InboxFull as error:
            raise SessionFault(FaultCode.BAD_MESSAGE, str(error)) from None
        self._arrived.set()

    def cancel(self, epoch: int, replays: bool = True) -> None:
        """Drop frames of older epochs, wherever they are; replayed ones only if ``replays``."""
        self.tree.cancel(epoch, replays)
        self._inbox.cancel(epoch, replays)

    def reroute(self, reroute: Reroute) -> None:
        """Go on to another next peer when the computation is done and the root is held.

        Never waits. What is on its way to the old peer is given up.

        Raises:
            SessionFault: if the session cannot be rerouted like this.
        """
        if self.downstream.hop is None:
            raise SessionFault(
                FaultCode.BAD_MESSAGE, "no peer follows here, so there is none to replace"
            )
        if reroute.replay is not None:
            if self.downstream.history is None:
                raise SessionFault(FaultCode.NO_HISTORY, "this peer does not keep what it sends on")
            if reroute.epoch <= self.tree.epoch or self.tree.stale(reroute.epoch):
                raise SessionFault(FaultCode.BAD_MESSAGE, "a reroute begins a newer epoch")
        self.cancel(reroute.epoch, replays=False)
        self.downstream.let_go()  # the next peer is lost, until the reroute is followed
        if self._passing is not None:
            self._passing.cancel()
        self._reroute = reroute
        self._arrived.set()

    def mirror(self, mirror: Mirror) -> None:
        """Let another peer stand by for the next one when the computation is done.

        Never waits. Nothing happens where that is impossible.
        """
        self._mirror = mirror
        self._arrived.set()

    def change_terms(self, message: ChangeTerms) -> TermsChanged:
        """Answer by other terms from now on; return the answer.

        Raises `SessionFault` for taps of other layers, and for candidates where there are none.
        """
        terms = message.taps
        if terms is not None and terms.within(*self.layers) != terms:
            raise SessionFault(FaultCode.BAD_MESSAGE, "these layers do not have all taps")
        if message.head is not None:
            self.predictions.change(message.head)
        self.taps = terms
        return TermsChanged(session=message.session)

    def refine(self, refine: Refine) -> None:
        """Tell more of one prediction when the computation is done. Never waits.

        Raises `SessionFault` if the session tells no candidates, or too many requests wait.
        """
        self.predictions.ask(refine)
        self._arrived.set()

    async def lend(self, fork: Fork, cache: KVCache, history: History | None) -> None:
        """Copy a beginning of the session when the computation is done; see `Forks.ask`."""
        self.heard_at = self._clock()
        copied = self._forks.ask(fork, cache, history)
        self._arrived.set()
        await copied

    def lose(self, link: Link, code: FaultCode, text: str) -> SessionFault | None:
        """Send nothing more over a link that failed.

        Returns what the client has to know; None if it was not the link to the next peer.
        """
        fault = self.downstream.lose(link, code, text)
        if fault is not None:
            self._arrived.set()
        return fault

    def progress(self) -> Progress:
        """Return how far the session has come here."""
        return Progress(
            session=self.opening.session,
            epoch=self.tree.epoch,
            last=self.tree.last,
            passed=self.downstream.passed,
            queued=self._queued,
            batches=self._scheduler.batches,
        )

    async def close(self) -> None:
        """Stop computing. May be called twice, but not by the session's own task."""
        await end(self._task)
        self._forks.close()
        await self.downstream.close()

    # What the scheduler asks for.

    @property
    def tokens(self) -> int:
        return self._inbox.next_tokens(self._room) if self._may_compute else 0

    def begin(self) -> Work:
        """Place the next frame in the tree.

        Raises `SessionFault` or `OutOfOrder` if it has no place there.
        """
        frame = self._inbox.take(self._room)
        placement = self.tree.admit(
            frame.epoch,
            frame.root,
            frame.first,
            frame.count,
            frame.parents,
            frame.replay is not None,
        )
        assert placement is not None  # nothing that waits is stale
        check_place(
            placement,
            frame.count,
            max_tokens=self.opening.max_tokens,
            max_positions=self._limits.max_positions,
            branches=self._scheduler.span.branches,
        )
        taps = Taps(self.taps, frame.tail) if self.taps is not None else None
        self._begun = frame, placement, taps
        return Work(self._cache, inputs_of(frame), placement, taps)

    @property
    def _room(self) -> int:
        """The number of tokens that fit whatever the frames forget.

        Joining frames must never be what breaks a limit.
        """
        tree = self.tree
        rows = self.opening.max_tokens
        return min(rows - tree.length, MAX_TAIL - (tree.length - tree.trunk))

    @property
    def _may_compute(self) -> bool:
        """Whether there is a frame to compute.

        While the next peer is lost, only replayed frames count: other peers need them in any case.
        """
        return bool(self._inbox.replays if self.downstream.lost else len(self._inbox))

    @property
    def _may_follow(self) -> bool:
        """Whether there is a reroute, and everything that it replays has been computed."""
        reroute = self._reroute
        tree = self.tree
        if reroute is None:
            return False
        return reroute.replay is None or tree.holds(reroute.root) or reroute.root <= tree.last

    @property
    def _has_requests(self) -> bool:
        return bool(self.predictions or self._forks)

    # What its task does.

    async def _run(self) -> None:
        try:
            while True:
                await self._something_to_do()
                self._check_life()
                if self._mirror is not None:
                    self._begin_mirror()
                elif self.predictions:
                    await self._refine()
                elif self._forks:
                    await self._forks.serve(self.tree, self._cache, self.downstream.history)
                elif not self._may_compute:
                    await self._follow()
                elif (computed := await self._compute()) is not None:
                    await self._pass_on(computed)
        except SessionFault as fault:
            self._failed(self, fault)
        except OutOfOrder as error:
            self._failed(self, SessionFault(FaultCode.OUT_OF_ORDER, str(error)))
        except Exception as error:
            log.exception("a session failed")
            self._failed(
                self, SessionFault(FaultCode.INTERNAL, f"{type(error).__name__} in the computation")
            )

    async def _compute(self) -> Computed | None:
        self._queued = True
        try:
            return await self._scheduler.compute(self)
        finally:
            self._queued = False

    async def _something_to_do(self) -> None:
        """Wait until there is something to compute, a reroute to follow, a mirror to begin, a
        prediction to refine or a beginning to copy.

        Raises `SessionFault` after a silence.
        """
        loop, silent = asyncio.get_running_loop(), False
        while not (self._may_compute or self._may_follow or self._mirror or self._has_requests):
            self._check_life()
            limits = self._limits
            patience_s = (
                limits.reroute_patience_s if self.downstream.lost else limits.idle_timeout_s
            )
            if silent:
                raise SessionFault(FaultCode.NO_SESSION, f"nothing came for {patience_s:g} s")
            self._arrived.clear()
            timer = loop.call_later(patience_s, self._arrived.set)
            try:
                await self._arrived.wait()
            finally:
                timer.cancel()
            silent = loop.time() >= timer.when()

    def _check_life(self) -> None:
        lifetime_s = self._limits.lifetime_s
        if self._clock() - self.since > lifetime_s:
            raise SessionFault(
                FaultCode.BUSY, f"a session lasts {lifetime_s:g} s at most; open it again"
            )

    async def _follow(self) -> None:
        """Follow a reroute: go back to its root, and on to another next peer."""
        reroute, self._reroute = self._reroute, None
        assert reroute is not None  # what else is there to do
        self._reroutes += 1
        most = self._limits.max_reroutes
        if self._reroutes > most:
            raise SessionFault(FaultCode.NO_HISTORY, f"this session was rerouted {most} times")
        if reroute.replay is not None:
            placement = self.tree.cut(reroute.epoch, reroute.root)
            self._cache.place(placement)
            self.downstream.keep(placement)
        await self._interruptibly(self.downstream.reroute(reroute))

    def _begin_mirror(self) -> None:
        """Begin a mirror while nothing is computed: the history now matches the token tree."""
        mirror, self._mirror = self._mirror, None
        assert mirror is not None  # else it is not begun
        self._reroutes += mirror.to is not None
        if self.downstream.hop is not None and self._reroutes <= self._limits.max_reroutes:
            self.downstream.mirror(mirror.to, self.tree)

    async def _pass_on(self, computed: Computed) -> None:
        """Keep an output, and send it on if it is not stale."""
        frame, placement, taps = self._begun
        self.downstream.keep(placement, computed.output)
        if self.tree.stale(frame.epoch, frame.replay is not None):
            return
        computed, candidates = await self.predictions.behind(frame, placement, computed)
        await self._interruptibly(self.downstream.send(frame, computed, candidates, taps))

    async def _refine(self) -> None:
        """Tell more of one prediction while nothing is computed: the history now matches the token
        tree."""
        refined = await self.predictions.refine(self.tree, self.downstream.history)
        await self._interruptibly(self.downstream.answer(refined))

    async def _interruptibly(self, sending: Coroutine[Any, Any, None]) -> None:
        """Wait until something has been sent, or a reroute makes that pointless."""
        self._passing = passing = asyncio.create_task(sending)
        try:
            await asyncio.wait({passing})
        except asyncio.CancelledError:
            await end(passing)
            raise
        finally:
            self._passing = None
        if not passing.cancelled():
            passing.result()
