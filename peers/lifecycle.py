"""The layers of a peer: from finding them, by serving and moving, to giving them up."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable

import torch

from peers.compute.cache_budget import CacheBudget
from peers.compute.loader import Loader
from peers.compute.memory import MemoryBudget
from peers.compute.scheduler import Scheduler
from peers.events import Emit, PeerEvent
from peers.offer import Offer
from peers.placement.block_selection import BlockSelection
from peers.sessions.handler import Handler
from swarm.errors import DirectoryDown, SwarmError
from swarm.model.span import Span
from swarm.routing import placement
from swarm.util.tasks import end, within

TELL_TIMEOUT_S = 4.0  # for the last record; a client that misses it learns it when it asks us
# of the pause after moves that failed: what cannot be loaded now is not tried all the time
MOST_DOUBLINGS = 6

log = logging.getLogger(__name__)


class Lifecycle:
    """Serves the layers of one peer.

    `run` or `run_free` serves them, `leave` gives them up, `close` ends the computation.

    Args:
        offer: kept up to date here; `publish` reads it.
        publish: writes the offer to the directory now. Raises `DirectoryDown`.
        grace_s: how long sessions may go on when their layers are given up.
        emit: called with every event that concerns the operator.
        serving: called with the span whenever one is served.
    """

    def __init__(
        self,
        offer: Offer,
        handler: Handler,
        loader: Loader,
        room: MemoryBudget,
        publish: Callable[[], Awaitable[None]],
        grace_s: float,
        emit: Emit,
        serving: Callable[[Span], None],
    ) -> None:
        self.offer = offer
        self.known = asyncio.Event()  # others have heard of this peer
        self._handler = handler
        self._loader = loader
        self._room = room
        self._publish = publish
        self._grace_s = grace_s
        self._emit = emit
        self._serving = serving
        self._span: Span | None = None
        self._computing: asyncio.Task[None] | None = None
        self._failed_moves = 0  # since the last one that went well

    async def run(self, layers: placement.Span) -> None:
        """Serve these layers, until cancelled."""
        await self.claim(layers)
        await self._serve(layers)
        await self._for(None)

    async def run_free(self, selection: BlockSelection, capacity: int) -> None:
        """Find layers, serve them, and move where others lack more; until cancelled.

        Where the layers to move to cannot be loaded, the old ones are served on.

        Args:
            selection: chooses the layers, and claims them by `claim`.
            capacity: how many fit here.
        """
        layers = await selection.choose()
        sentence = (
            f"taking layers {layers[0]}:{layers[1]}, which the swarm needs most; {capacity} fit"
            " here"
        )
        self._emit(PeerEvent("taking", sentence, {"layers": layers, "capacity": capacity}))
        await self._serve(layers)
        while True:
            await self._for(selection.pause_s() * 2.0 ** min(self._failed_moves, MOST_DOUBLINGS))
            await self._reconsider(selection)

    async def claim(self, layers: placement.Span) -> None:
        """Let others know that these layers will be served here soon."""
        self.offer.layers, self.offer.state = layers, "joining"
        await self._tell()

    async def leave(self) -> None:
        """Give up the layers, after `run` has been cancelled."""
        self.offer.state = "draining"
        self._handler.sessions.draining = True
        if self._handler.sessions:  # else the record is withdrawn at once
            with contextlib.suppress(asyncio.TimeoutError):
                await within(TELL_TIMEOUT_S, self._tell())
        await self._handler.put_down(self._grace_s)

    async def close(self) -> None:
        """End the compute thread; sessions that still wait for it fail."""
        if self._computing is not None:
            await end(self._computing)

    async def _serve(self, layers: placement.Span) -> None:
        await self._take_up(await self._loader.load(*layers))

    async def _take_up(self, span: Span) -> None:
        speed = await self._loader.measure(span)
        head = await self._loader.load_head(span)
        budget = self._room.cache_budget((span.first, span.last))
        scheduler = Scheduler(span, self._handler.counters, head=head)
        self._span = span
        self._computing = asyncio.create_task(scheduler.run())
        self._handler.take_up(scheduler, budget)
        self.offer.layers, self.offer.state = (span.first, span.last), "online"
        self.offer.tokens_per_second, self.offer.budget = speed, budget
        self.offer.head_bytes = 0 if head is None else head.nbytes
        await self._tell()
        self._serving(span)

    async def _put_down(self) -> None:
        await self._handler.put_down(self._grace_s)
        await self.close()
        self._span = self._computing = None
        self.offer.budget = CacheBudget(0)
        self.offer.head_bytes = 0
        _free_memory()

    async def _reconsider(self, selection: BlockSelection) -> None:
        assert self._span is not None  # something is served
        served = self._span.first, self._span.last
        layers = await selection.reconsider(*served, self.offer.tokens_per_second)
        if layers is not None:
            sentence = (
                f"moving from layers {served[0]}:{served[1]} to {layers[0]}:{layers[1]}, which need"
                " it more"
            )
            self._emit(PeerEvent("moving", sentence, {"layers": layers, "from_layers": served}))
            await self._move_or_stay(served, layers)
        elif self.offer.state != "online":  # others were quicker
            await self._offer_again(served)

    async def _move_or_stay(self, served: placement.Span, layers: placement.Span) -> None:
        """Move; if the new layers cannot be served, go on with the old ones.

        The old ones may have to be loaded again.
        """
        try:
            await self._move(served, layers)
        except Exception as error:
            if not isinstance(error, SwarmError):
                log.exception("moving failed")
            why = str(error) or type(error).__name__
        else:
            self._failed_moves = 0
            return
        # Only here: the error, which refers to what was loaded of the new layers, is gone.
        self._failed_moves += 1
        sentence = (
            f"staying with layers {served[0]}:{served[1]}: {layers[0]}:{layers[1]} could not be"
            f" served ({why})"
        )
        self._emit(
            PeerEvent("staying", sentence, {"layers": served, "to_layers": layers, "why": why})
        )
        if self._span is not None and (self._span.first, self._span.last) == served:
            _free_memory()
            await self._offer_again(served)
        else:
            await self._put_down()
            await self.claim(served)
            await self._serve(served)

    async def _offer_again(self, served: placement.Span) -> None:
        """Let others know that these layers are still served here."""
        self.offer.layers, self.offer.state = served, "online"
        await self._tell()

    async def _move(self, served: placement.Span, layers: placement.Span) -> None:
        """Sessions go on while the new layers are loaded, if there is memory for both.

        Raises what loading raises.
        """
        if self._room.takes_also(layers, served):
            span = await self._loader.load(*layers)
            await self._put_down()
            await self._take_up(span)
        else:
            await self._put_down()
            await self._serve(layers)

    async def _for(self, seconds: float | None) -> None:
        """Serve for this long, or for good. Raise what the compute thread dies of."""
        assert self._computing is not None  # something is served
        done, _ = await asyncio.wait({self._computing}, timeout=seconds)
        for task in done:
            task.result()

    async def _tell(self) -> None:
        """Publish the offer. A later change that cannot be published waits for the next refresh."""
        try:
            await self._publish()
        except DirectoryDown as error:
            if not self.known.is_set():
                raise
            log.warning("a change will be published later: %s", error)
        self.known.set()


def _free_memory() -> None:
    """Give back the memory of layers that are no longer served."""
    gc.collect()  # the hooks of a span refer to it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
