"""Bodies of requests come in: bounded in bytes, in time, and in what all of them take together.

A body may be as large as the longest text that peers speak of. Few are, so what is small comes in
at once, and what is large waits until there is room for it, unread: its sender waits with it.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from swarm.gateway.errors import BadRequest, Crowded
from swarm.util.tasks import within

JSON = "application/json"
MAX_BODY_BYTES = 32 << 20  # a text of a million tokens, every character of it escaped
SMALL_BODY_BYTES = 1 << 20  # bodies up to here take no room of the others'
ROOM_BYTES = 64 << 20  # for all larger ones at a time
ROOM_TIMEOUT_S = 30.0  # for that room to be free
BODY_TIMEOUT_S = 30.0  # for a body to come, and
LEAST_BYTES_PER_S = 256 << 10  # so fast beyond that: a large one may take longer
# zlib's name of each
ENCODINGS = {"identity": None, "gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
PIECE_BYTES = 256 << 10  # that are unpacked at a time


class Source(Protocol):
    """The bytes of a body: `aiohttp.StreamReader`."""

    async def readany(self) -> bytes: ...


class Room:
    """Bytes that large bodies share: first come, first served.

    `take` and `give_back` come in pairs.
    """

    def __init__(self, nbytes: int, timeout_s: float) -> None:
        self.free = nbytes
        self._timeout_s = timeout_s
        self._line: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, nbytes: int) -> None:
        """Wait for so many bytes. Raises `Crowded` if they are not free in time."""
        if not self._line and nbytes <= self.free:
            self.free -= nbytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((turn, nbytes))
        try:
            await asyncio.wait({turn}, timeout=self._timeout_s)
        except asyncio.CancelledError:
            if turn.done():
                self.give_back(nbytes)
            raise
        finally:
            if not turn.done():
                self._line.remove((turn, nbytes))
                self._call()
        if not turn.done():
            raise Crowded(self._timeout_s)

    def give_back(self, nbytes: int) -> None:
        self.free += nbytes
        self._call()

    def _call(self) -> None:
        while self._line and self._line[0][1] <= self.free:
            turn, nbytes = self._line.popleft()
            self.free -= nbytes
            turn.set_result(None)


class Held:
    """The room that one body takes, until its text is in a form of its own bounds."""

    def __init__(self, room: Room) -> None:
        self._room, self._nbytes = room, 0

    async def grow(self, nbytes: int) -> None:
        """Take room for a body of so many bytes; small ones need none."""
        if not self._nbytes and nbytes > SMALL_BODY_BYTES:
            await self._room.take(nbytes)
            self._nbytes = nbytes

    def give_back(self) -> None:
        """May be called twice."""
        nbytes, self._nbytes = self._nbytes, 0
        if nbytes:
            self._room.give_back(nbytes)


class Intake:
    """Where bodies come in."""

    def __init__(self, room: Room | None = None) -> None:
        self._room = room or Room(ROOM_BYTES, ROOM_TIMEOUT_S)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Held]:
        """Room for one body. It is given back at the end, or earlier by `Held.give_back`."""
        held = Held(self._room)
        try:
            yield held
        finally:
            held.give_back()

    async def read(self, request: web.Request, held: Held) -> bytes:
        """Return the body of a request, unpacked.

        Raises:
            BadRequest: 400, 408, 413 or 415, if it is none that can be taken.
            Crowded: if other large bodies leave no room.
        """
        if request.content_type != JSON:
            raise BadRequest(f"send the body as `Content-Type: {JSON}`", status=415)
        packing = Packing.named(request.headers.get("Content-Encoding", "identity"))
        declared = request.content_length
        if declared is not None and declared > MAX_BODY_BYTES:
            raise _too_large()
        # What is told to be small is believed: one byte more, and it is no part of the body.
        largest = declared if declared is not None and packing.plain else MAX_BODY_BYTES
        body = bytearray()
        try:
            async with aclosing(_arriving(request.content)) as chunks:
                async for chunk in chunks:
                    for piece in packing.unpack(chunk):
                        body += piece
                        if len(body) > MAX_BODY_BYTES:
                            raise _too_large()
                        if len(body) > SMALL_BODY_BYTES:
                            await held.grow(largest)
                        # between the pieces of a bomb others have their turn
                        await asyncio.sleep(0)
            packing.end()
        except zlib.error:
            raise BadRequest("the body is not packed as its Content-Encoding says") from None
        return bytes(body)


class Packing:
    """One body's content encoding, undone step by step, so that a small body that unpacks to a huge
    one is noticed."""

    def __init__(self, bits: int | None) -> None:
        self._bits = bits
        self._begins = True
        self._unpacker = zlib.decompressobj(bits) if bits is not None else None

    @classmethod
    def named(cls, encoding: str) -> "Packing":
        """Raises `BadRequest` for one that is not known here."""
        name = encoding.strip().lower()
        if name not in ENCODINGS:
            known = ", ".join(ENCODINGS)
            raise BadRequest(
                f"the Content-Encoding {encoding[:40]!r} is not known; these are: {known}",
                status=415,
            )
        return cls(ENCODINGS[name])

    @property
    def plain(self) -> bool:
        return self._bits is None

    def unpack(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what a chunk holds in pieces of `PIECE_BYTES` at most. Raises `zlib.error`."""
        if self._unpacker is None:
            yield chunk
            return
        if self._begins and self._bits == zlib.MAX_WBITS and chunk[0] & 0xF != zlib.DEFLATED:
            # some send deflate without zlib's head
            self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        self._begins = False
        while chunk:
            if self._unpacker.eof:  # gzip may have several members, one behind the other
                self._unpacker = zlib.decompressobj(self._bits or 0)
            yield self._unpacker.decompress(chunk, PIECE_BYTES)
            chunk = self._unpacker.unconsumed_tail or self._unpacker.unused_data

    def end(self) -> None:
        """No more comes. Raises `zlib.error` if more is due."""
        if self._unpacker is not None and not self._unpacker.eof:
            raise zlib.error("it ends early")


async def _arriving(source: Source) -> AsyncGenerator[bytes, None]:
    """The chunks of a body as they come, within a time that grows with them.

    Raises `BadRequest`.
    """
    waited_s, allowed_s = 0.0, BODY_TIMEOUT_S
    clock = asyncio.get_running_loop().time
    while True:
        since = clock()
        try:
            chunk = await within(max(0.0, allowed_s - waited_s), source.readany())
        except asyncio.TimeoutError:
            raise BadRequest("the body comes too slowly", status=408) from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise BadRequest("the body ends early, or its chunks cannot be read") from None
        if not chunk:
            return
        waited_s += clock() - since
        allowed_s += len(chunk) / LEAST_BYTES_PER_S
        yield chunk


def _too_large() -> BadRequest:
    return BadRequest(
        f"the body is larger than {MAX_BODY_BYTES >> 20} MiB, which is as much as is read",
        status=413,
    )
