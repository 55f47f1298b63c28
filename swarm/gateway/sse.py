"""Server-sent events to one reader, who may be slow but not for ever."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from aiohttp import web

from swarm.errors import SwarmError
from swarm.network.tasks import within

WRITE_TIMEOUT_S = 30.0  # for a reader to take what is sent; until then a generation waits, and its peers with it
HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
DONE = "[DONE]"


class SlowReader(SwarmError):
    """A reader takes nothing any more. The connection is closed."""

    def __str__(self) -> str:
        return f"the reader took nothing for {WRITE_TIMEOUT_S:g} s"


class EventStream:
    """Open it before the first event; close it at the end.

    What waits for the reader is bounded by the buffer of the connection: whoever sends waits until there is room.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(headers=HEADERS)

    async def open(self) -> None:
        await self.response.prepare(self._request)

    async def send(self, data: dict[str, Any] | str) -> None:
        """Send one event.

        Raises:
            SlowReader: if the reader does not take it in time.
            ConnectionResetError: if the reader has left.
        """
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        await self._in_time(self.response.write(f"data: {text}\n\n".encode("utf-8", "replace")))

    async def close(self) -> None:
        """Send the last event and the end of the body. Raises what `send` raises."""
        await self.send(DONE)
        await self._in_time(self.response.write_eof())

    async def _in_time(self, writing: Awaitable[None]) -> None:
        try:
            await within(WRITE_TIMEOUT_S, writing)
        except asyncio.TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise SlowReader from None
