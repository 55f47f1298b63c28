"""Server-sent events to one reader, who may be slow up to a limit."""

import asyncio
import json
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, TypeVar

from aiohttp import web

from swarm.errors import RemoteViolation
from swarm.util.tasks import end, within

# Proxies and clients give up on a silent server. Until then a failure has its own status.
OPEN_AFTER_S = 2.0
COMMENT_EVERY_S = 10.0  # of silence
COMMENT = b": still here\n\n"  # readers ignore comments
WRITE_TIMEOUT_S = 30.0  # for the reader, for whom the generation and its peers wait
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
NO_HEADERS: Mapping[str, str] = {}
DONE = "[DONE]"

T = TypeVar("T")


class SlowReader(RemoteViolation):
    """The reader no longer reads. The connection is closed."""

    def __str__(self) -> str:
        return f"the reader took nothing for {WRITE_TIMEOUT_S:g} s"


class EventStream:
    """A stream of events. The first event opens it, or a comment if that takes long.

    The buffer of the connection bounds the data that wait for the reader: sending waits until there
    is room in it. Close the stream at the end.
    """

    def __init__(self, request: web.Request, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._request = request
        self._clock = asyncio.get_running_loop().time
        self._due = self._clock() + OPEN_AFTER_S  # when a comment ends the silence
        self.response = web.StreamResponse(headers={**HEADERS, **headers})

    @property
    def is_open(self) -> bool:
        """Whether the reader has the status and the headers."""
        return self.response.prepared

    async def open(self) -> None:
        """Send the headers. Raise what `send` raises."""
        if not self.is_open:
            await self._in_time(self.response.prepare(self._request))

    async def send(self, data: dict[str, Any] | str) -> None:
        """Send one event.

        Raises:
            SlowReader: if the reader does not take it in time.
            ConnectionResetError: if the reader has left.
        """
        if not isinstance(data, str):
            data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        await self._write(f"data: {data}\n\n".encode("utf-8", "replace"))

    async def while_waiting(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, and send comments while it takes long.

        Raise what ``work`` raises, and what `send` raises.
        """
        working = asyncio.create_task(work)
        try:
            while True:
                until_due_s = max(0.0, self._due - self._clock())
                done, _ = await asyncio.wait({working}, timeout=until_due_s)
                if done:
                    return working.result()
                await self._write(COMMENT)
        finally:
            await end(working)

    async def close(self) -> None:
        """Send the last event and the end of the body. Raise what `send` raises."""
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
