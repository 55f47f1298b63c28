"""Read the bodies of requests, bounded in bytes, in time, and in their memory all together.

A body may be as large as the longest text that a session can hold. Few are: small bodies are read
at once. A large body stays unread until the others leave memory for it, and its sender waits.
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
SMALL_BODY_BYTES = 1 << 20  # bodies up to here do not count against the budget
BUDGET_BYTES = 64 << 20  # for all larger bodies at a time
BUDGET_TIMEOUT_S = 30.0  # that a large body waits for the budget
BODY_TIMEOUT_S = 30.0  # for a body to arrive
LEAST_BYTES_PER_S = 256 << 10  # every byte that arrives extends that timeout at this rate
# zlib's window bits for each Content-Encoding
ENCODINGS = {"identity": None, "gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
PIECE_BYTES = 256 << 10  # that are decompressed at a time


class ByteStream(Protocol):
    """The bytes of a body: `aiohttp.StreamReader`."""

    async def readany(self) -> bytes: ...


class BodyBudget:
    """Bytes that large bodies share: first come, first served.

    `reserve` and `release` come in pairs.
    """

    def __init__(self, nbytes: int, timeout_s: float) -> None:
        self.free = nbytes
        self._timeout_s = timeout_s
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()

    async def reserve(self, nbytes: int) -> None:
        """Wait for ``nbytes``. Raise `Crowded` if they are not free in time."""
        if not self._queue and nbytes <= self.free:
            self.free -= nbytes
            return
        reserved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((reserved, nbytes))
        try:
            await asyncio.wait({reserved}, timeout=self._timeout_s)
        except asyncio.CancelledError:
            if reserved.done():
                self.release(nbytes)
            raise
        finally:
            if not reserved.done():
                self._queue.remove((reserved, nbytes))
                self._serve_queue()
        if not reserved.done():
            raise Crowded(self._timeout_s)

    def release(self, nbytes: int) -> None:
        """The other half of `reserve`."""
        self.free += nbytes
        self._serve_queue()

    def _serve_queue(self) -> None:
        while self._queue and self._queue[0][1] <= self.free:
            reserved, nbytes = self._queue.popleft()
            self.free -= nbytes
            reserved.set_result(None)


class BodyReservation:
    """The part of a budget that one body holds, until its text is parsed into bounded fields."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._nbytes = 0

    async def grow(self, nbytes: int) -> None:
        """Reserve ``nbytes`` for the body, once; a small body needs none."""
        if not self._nbytes and nbytes > SMALL_BODY_BYTES:
            await self._budget.reserve(nbytes)
            self._nbytes = nbytes

    def release(self) -> None:
        """Give all of it back. May be called twice."""
        nbytes, self._nbytes = self._nbytes, 0
        if nbytes:
            self._budget.release(nbytes)


class Intake:
    """Reads the bodies of requests within one budget."""

    def __init__(self, budget: BodyBudget | None = None) -> None:
        self._budget = budget or BodyBudget(BUDGET_BYTES, BUDGET_TIMEOUT_S)

    @asynccontextmanager
    async def reservation(self) -> AsyncIterator[BodyReservation]:
        """A reservation for one body, released at the end or earlier by its `release`."""
        reservation = BodyReservation(self._budget)
        try:
            yield reservation
        finally:
            reservation.release()

    async def read(self, request: web.Request, reservation: BodyReservation) -> bytes:
        """Return the body of a request, decompressed.

        Raises:
            BadRequest: with status 400, 408, 413 or 415, if the body cannot be read.
            Crowded: if other large bodies leave no memory for it.
        """
        # A form has a type. A script of another page may leave it out, but never its origin.
        if "Content-Type" in request.headers and request.content_type != JSON:
            raise BadRequest(f"send the body as `Content-Type: {JSON}`", status=415)
        decompressor = Decompressor.of(request.headers.get("Content-Encoding", "identity"))
        declared = request.content_length
        if declared is not None and declared > MAX_BODY_BYTES:
            raise _too_large()
        # A declared length can be trusted: no byte beyond it belongs to the body.
        largest = declared if declared is not None and decompressor.is_identity else MAX_BODY_BYTES
        body = bytearray()
        try:
            async with aclosing(_arriving(request.content)) as chunks:
                async for chunk in chunks:
                    for piece in decompressor.decompress(chunk):
                        body += piece
                        if len(body) > MAX_BODY_BYTES:
                            raise _too_large()
                        if len(body) > SMALL_BODY_BYTES:
                            await reservation.grow(largest)
                        # other requests run between the pieces of a decompression bomb
                        await asyncio.sleep(0)
            decompressor.finish()
        except zlib.error:
            raise BadRequest("the body is not compressed as its Content-Encoding says") from None
        return bytes(body)


class Decompressor:
    """Undoes one body's content encoding piece by piece, so that a decompression bomb is noticed.

    Args:
        bits: zlib's window bits, None for no compression.
    """

    def __init__(self, bits: int | None) -> None:
        self._bits = bits
        self._is_first_chunk = True
        self._zlib = zlib.decompressobj(bits) if bits is not None else None

    @classmethod
    def of(cls, encoding: str) -> "Decompressor":
        """Return the one for a Content-Encoding. Raise `BadRequest` for an unknown encoding."""
        name = encoding.strip().lower()
        if name not in ENCODINGS:
            known = ", ".join(ENCODINGS)
            raise BadRequest(
                f"the Content-Encoding {encoding[:40]!r} is not known; these are: {known}",
                status=415,
            )
        return cls(ENCODINGS[name])

    @property
    def is_identity(self) -> bool:
        """Whether the body is not compressed."""
        return self._bits is None

    def decompress(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the content of a chunk, `PIECE_BYTES` at most at a time. Raise `zlib.error`."""
        if self._zlib is None:
            yield chunk
            return
        if self._is_first_chunk and self._bits == zlib.MAX_WBITS and not _has_zlib_header(chunk):
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        self._is_first_chunk = False
        while chunk:
            if self._zlib.eof:  # gzip may have several members, one behind the other
                self._zlib = zlib.decompressobj(self._bits or 0)
            yield self._zlib.decompress(chunk, PIECE_BYTES)
            chunk = self._zlib.unconsumed_tail or self._zlib.unused_data

    def finish(self) -> None:
        """End the body. Raise `zlib.error` if it is incomplete."""
        if self._zlib is not None and not self._zlib.eof:
            raise zlib.error("the compressed data end early")


def _has_zlib_header(chunk: bytes) -> bool:
    """Tell whether deflated data begin with zlib's header, which some clients leave out."""
    return chunk[0] & 0xF == zlib.DEFLATED


async def _arriving(source: ByteStream) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a body as they arrive, within a time that grows with them.

    Raises `BadRequest`.
    """
    waited_s = 0.0
    allowed_s = BODY_TIMEOUT_S
    clock = asyncio.get_running_loop().time
    while True:
        since = clock()
        try:
            chunk = await within(max(0.0, allowed_s - waited_s), source.readany())
        except asyncio.TimeoutError:
            raise BadRequest("the body arrives too slowly", status=408) from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise BadRequest("the body ends early, or its chunks cannot be read") from None
        if not chunk:
            return
        waited_s += clock() - since
        allowed_s += len(chunk) / LEAST_BYTES_PER_S
        yield chunk


def _too_large() -> BadRequest:
    return BadRequest(
        f"the body is larger than {MAX_BODY_BYTES >> 20} MiB, the most that is read",
        status=413,
    )
