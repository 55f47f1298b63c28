"""Server-sent events to one reader, who may be slow up to a limit."""

import asyncio
import json
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiohttp import web

from swarm.errors import RemoteViolation
from swarm.util.tasks import end, within

# Proxies and clients give up on a silent server. Until then a failure has its own status.
OPEN_AFTER_S = 2.0
COMMENT_EVERY_S = 10.0  # of silence
COMMENT = b": still here\n\n"  # readers ignore comments
WRITE_TIMEOUT_S = 30.0  # for the reader, for whom the generation and its peers wait
EVENT_STREAM = "text/event-stream; charset=utf-8"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
NO_HEADERS: Mapping[str, str] = {}

T = TypeVar("T")


class StreamFrame(Protocol):
    """A part of a stream."""

    def encode(self) -> bytes: ...


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event: JSON, or text as it is. Some protocols name their events."""

    data: dict[str, Any] | str
    name: str | None = None

    def encode(self) -> bytes:
        data = self.data if isinstance(self.data, str) else as_json(self.data)
        name = f"event: {self.name}\n" if self.name else ""
        return f"{name}data: {data}\n\n".encode("utf-8", "replace")


DONE = ServerEvent("[DONE]")


def as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


class SlowReader(RemoteViolation):
    """The reader no longer reads. The connection is closed."""

    def __str__(self) -> str:
        return f"the reader took nothing for {WRITE_TIMEOUT_S:g} s"


class EventStream:
    """A stream of events. The first event opens it, or a comment if that takes long.

    The buffer of the connection bounds the data that wait for the reader: sending waits until there
    is room in it. Close the stream at the end.

    Args:
        headers: beside the usual ones.
        heartbeat: what is sent after a long silence.
    """

    def __init__(
        self,
        request: web.Request,
        headers: Mapping[str, str] = NO_HEADERS,
        content_type: str = EVENT_STREAM,
        heartbeat: bytes = COMMENT,
    ) -> None:
        self._request = request
        self._heartbeat = heartbeat
        self._clock = asyncio.get_running_loop().time
        self._due = self._clock() + OPEN_AFTER_S  # when a heartbeat ends the silence
        self.response = web.StreamResponse(
            headers={"Content-Type": content_type, **HEADERS, **headers}
        )

    @property
    def is_open(self) -> bool:
        """Whether the reader has the status and the headers."""
        return self.response.prepared

    async def open(self) -> None:
        """Send the headers. Raise what `write` raises."""
        if not self.is_open:
            await self._in_time(self.response.prepare(self._request))

    async def send(self, data: dict[str, Any]) -> None:
        """Send one server-sent event. Raise what `write` raises."""
        await self.write(ServerEvent(data))

    async def write(self, *frames: StreamFrame) -> None:
        """Send parts of the stream.

        Raises:
            SlowReader: if the reader does not take them in time.
            ConnectionResetError: if the reader has left.
        """
        if frames:
            await self._write(b"".join(frame.encode() for frame in frames))

    async def while_waiting(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, and send heartbeats while it takes long.

        Raise what ``work`` raises, and what `write` raises.
        """
        working = asyncio.create_task(work)
        try:
            while True:
                until_due_s = max(0.0, self._due - self._clock())
                done, _ = await asyncio.wait({working}, timeout=until_due_s)
                if done:
                    return working.result()
                await self._write(self._heartbeat)
        finally:
            await end(working)

    async def close(self) -> None:
        """Send the end of the body. Raise what `write` raises."""
        await self.open()
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
