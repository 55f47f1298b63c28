"""Frames for a peer that stands by, sent by a task of their own: the session never waits for
them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, Protocol, TypeVar

from swarm.network.links.link import LinkClosed
from swarm.util.tasks import end
from swarm.wire.messages import Frame, WireMessage

# tokens that wait for a slow link, beside the first frames; with more the feed is given up
MAX_BEHIND_TOKENS = 512

log = logging.getLogger(__name__)


class Sender(Protocol):
    """Something that takes messages."""

    def send(self, message: WireMessage) -> Awaitable[int]:
        """Raises `LinkClosed`."""
        ...


S = TypeVar("S", bound=Sender)


class ReplicaFeed(Generic[S]):
    """Sends a peer the first frames, and then every frame that is put.

    If that fails or lags too far behind, the feed ends silently. Its owner calls `close`.

    Args:
        connect: gives what the frames are sent to. Raises `LinkClosed`.
        release: gives it back, unless `finish` has handed it over.
        first: frames to begin with; asked for one by one, each when it is sent.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[S]],
        release: Callable[[S], None],
        first: Iterator[Frame],
    ) -> None:
        self._connect = connect
        self._release = release
        self._sender: S | None = None
        self._frames: deque[Frame] = deque()
        self._behind = 0  # tokens of these
        self._finishing = False
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run(first))

    @property
    def over(self) -> bool:
        """Whether nothing is sent any more."""
        return self._task.done()

    def put(self, frame: Frame) -> None:
        """Send this one too; never waits."""
        if self.over:
            return
        if self._behind + frame.count > MAX_BEHIND_TOKENS:
            log.info("a peer that stands by is too slow")
            self._task.cancel()
            return
        self._frames.append(frame)
        self._behind += frame.count
        self._arrived.set()

    async def finish(self) -> S:
        """Wait until everything has been sent, and hand over what took it: that is not released
        here any more.

        Raises:
            LinkClosed: if not everything could be sent.
        """
        self._finishing = True
        self._arrived.set()
        await asyncio.wait({self._task})
        sender, self._sender = self._sender, None
        if sender is None:
            raise LinkClosed("a peer that stands by", "it was not told everything")
        return sender

    def uses(self, sender: S) -> bool:
        """Whether this is what the frames are sent to."""
        return self._sender is sender

    async def close(self) -> None:
        """Send nothing more. May be called twice."""
        await end(self._task)
        self._let_go()

    async def _run(self, first: Iterator[Frame]) -> None:
        finished = False
        try:
            self._sender = sender = await self._connect()
            for frame in first:
                await sender.send(frame)
            while self._frames or not self._finishing:
                self._arrived.clear()
                while self._frames:
                    frame = self._frames.popleft()
                    self._behind -= frame.count
                    await sender.send(frame)
                if not self._finishing:
                    await self._arrived.wait()
            finished = True
        except LinkClosed as error:
            log.info("a peer that stands by: %s", error)
        except Exception:
            log.exception("a peer that stands by cannot be told what it needs")
        finally:
            self._frames.clear()
            if not finished:
                self._let_go()

    def _let_go(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            self._release(sender)
