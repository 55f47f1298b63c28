"""Server-sent events to one reader, who may be slow but not for ever."""

import asyncio
import json
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from swarm.errors import SwarmError
from swarm.util.tasks import end, within

# proxies and clients give up where they hear nothing; until then a failure has its own status
OPEN_AFTER_S = 2.0
COMMENT_EVERY_S = 10.0  # of silence, whatever happens meanwhile
COMMENT = b": still here\n\n"  # which readers drop
# for a reader to take what is sent; until then a generation waits, and its peers with it
WRITE_TIMEOUT_S = 30.0
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
DONE = "[DONE]"

T = TypeVar("T")


class SlowReader(SwarmError):
    """A reader takes nothing any more. The connection is closed."""

    def __str__(self) -> str:
        return f"the reader took nothing for {WRITE_TIMEOUT_S:g} s"


class EventStream:
    """Close it at the end; it is opened by the first event, or when that takes long.

    What waits for the reader is bounded by the buffer of the connection: whoever sends waits until
    there is room.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._clock = asyncio.get_running_loop().time
        self._due = self._clock() + OPEN_AFTER_S  # when something has to be said, whatever it is
        self.response = web.StreamResponse(headers=HEADERS)

    @property
    def is_open(self) -> bool:
        """Whether the reader has the status and the headers."""
        return self.response.prepared

    async def open(self) -> None:
        """Send the headers. Raises what `send` raises."""
        if not self.is_open:
            await self._in_time(self.response.prepare(self._request))

    async def send(self, data: dict[str, Any] | str) -> None:
        """Send one event.

        Raises:
            SlowReader: if the reader does not take it in time.
            ConnectionResetError: if the reader has left.
        """
        text = (
            data
            if isinstance(data, str)
            else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        )
        await self._write(f"data: {text}\n\n".encode("utf-8", "replace"))

    async def while_waiting(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``.

        Meanwhile the reader gets the headers, and a comment whenever it is time.

        Raises what ``work`` raises, and what `send` raises.
        """
        working = asyncio.create_task(work)
        try:
            while not (await asyncio.wait({working}, timeout=max(0.0, self._due - self._clock())))[
                0
            ]:
                await self._write(COMMENT)
            return working.result()
        finally:
            await end(working)

    async def close(self) -> None:
        """Send the last event and the end of the body. Raises what `send` raises."""
        await self.send(DONE)
        await self._in_time(self.response.write_eof())

    async def _write(self, data: bytes) -> None:
        await self.open()
        await self._in_time(self.response.write(data))
        self._due = self._clock() + COMMENT_EVERY_S

    async def _in_time(self, writing: Awaitable[Any]) -> None:
        try:
            await within(WRITE_TIMEOUT_S, writing)
        except asyncio.TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise SlowReader from None
