"""A client's connection against a scripted peer at the other end of a real link."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from helpers.loopback import Server, dialed, eventually, listen, pong, session_id, soon
from swarm.network.links import connection as connections
from swarm.network.links.arrivals import Arrival, ArrivalQueue
from swarm.network.links.connection import Connection
from swarm.network.links.link import Link, LinkClosed
from swarm.wire.codec import WireError
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Close, Fault, Opened, Ping, Pong

Script = Callable[[Link], Awaitable[None]]


@asynccontextmanager
async def connected(script: Script, delay_ms: float = 0.0) -> AsyncIterator[Connection]:
    async with Server(script) as server, dialed(server, delay_ms) as link:
        connection = Connection("the-peer", link)
        try:
            yield connection
        finally:
            await connection.close()


def saying(*messages: Opened | Fault | Ping | Pong) -> Script:
    """Says this once it has heard something, then keeps listening."""

    async def script(link: Link) -> None:
        await link.receive()
        for message in messages:
            await link.send(message)
        await listen(link)

    return script


def inbox(size: int = 8, most_bytes: int = 1 << 20) -> ArrivalQueue:
    return ArrivalQueue(size, most_bytes)


async def test_a_ping_measures_the_round_trip() -> None:
    async with connected(pong, delay_ms=20.0) as connection:
        assert connection.rtt_ms >= 20.0, "the hello measured it"
        assert await soon(connection.ping()) >= 20.0
        assert connection.rtt_ms >= 20.0


async def test_pings_at_the_same_time_do_not_mix_up() -> None:
    async with connected(pong) as connection:
        assert all(await soon(asyncio.gather(*(connection.ping() for _ in range(20)))))
        assert not connection._pings


async def test_a_ping_that_is_not_answered_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PING_TIMEOUT_S", 0.05)
    async with connected(saying(Pong(nonce=99))) as connection:
        with pytest.raises(LinkClosed, match="no answer"):
            await soon(connection.ping())
        assert not connection._pings
        assert not connection.closed  # late is not gone


async def test_a_ping_fails_at_once_when_the_peer_leaves() -> None:
    async def leave(link: Link) -> None:
        await link.receive()

    async with connected(leave) as connection:
        for _ in range(2):
            with pytest.raises(LinkClosed):
                await soon(connection.ping())
        assert connection.closed


async def test_messages_go_to_the_inbox_of_their_session() -> None:
    first, second, other = (Opened(session=session_id(n)) for n in (1, 2, 3))
    async with connected(saying(first, other, second, first)) as connection:
        inboxes = {n: inbox() for n in (1, 2)}
        for n in inboxes:
            connection.subscribe(session_id(n), inboxes[n])
        assert await connection.send(Close(session=session_id(1))) > 0
        arrivals = [await soon(inboxes[n].get()) for n in (1, 2, 1)]
        assert [arrival.message for arrival in arrivals] == [first, second, first]
        assert all(arrival.peer_id == "the-peer" and arrival.nbytes > 0 for arrival in arrivals)


async def test_a_session_that_nobody_reads_holds_up_nobody() -> None:
    async def script(link: Link) -> None:
        await link.receive()
        for _ in range(4):
            await link.send(Opened(session=session_id(1)))
        await pong(link)

    async with connected(script) as connection:
        connection.subscribe(session_id(1), inbox(4))
        await connection.send(Close(session=session_id(1)))
        await soon(connection.ping())


@pytest.mark.parametrize("box", [inbox(4), inbox(most_bytes=100)], ids=["messages", "bytes"])
async def test_a_peer_that_overfills_an_inbox_loses_its_link_and_the_session_hears_of_it(
    box: ArrivalQueue,
) -> None:
    async with connected(saying(*[Opened(session=session_id(1))] * 5)) as connection:
        connection.subscribe(session_id(1), box)
        await connection.send(Close(session=session_id(1)))
        await eventually(lambda: connection.closed)
        last = [box.get_nowait().message for _ in range(box.qsize())][-1]
        assert isinstance(last, WireError)


@pytest.mark.parametrize("how", ["the peer leaves", "we close"])
async def test_every_session_hears_of_the_end(how: str) -> None:
    async def leave(link: Link) -> None:
        await link.receive()

    async with connected(leave) as connection:
        boxes = [inbox(), inbox(1)]
        for number, box in enumerate(boxes):
            connection.subscribe(session_id(number), box)
        # full: the end comes all the same
        boxes[1].put_nowait(Arrival("the-peer", Opened(session=session_id(1)), 0.0))
        if how == "we close":
            await asyncio.sleep(0)  # the reader has begun
            await connection.close()
        else:
            await connection.send(Close(session=session_id()))
        for box in boxes:
            await eventually(
                lambda box=box: not box.empty() and isinstance(box._queue[-1].message, LinkClosed)
            )


async def test_a_session_that_subscribes_too_late_hears_of_the_end_too() -> None:
    async with connected(pong) as connection:
        await soon(connection.ping())
        await connection.close()
        await connection.close()
        box = inbox()
        connection.subscribe(session_id(), box)
        assert isinstance(box.get_nowait().message, LinkClosed)
        with pytest.raises(LinkClosed):
            await connection.send(Close(session=session_id()))


@pytest.mark.parametrize(
    "message", [Fault(code=FaultCode.BAD_MESSAGE, text="you speak nonsense"), Ping(nonce=1)]
)
async def test_what_is_for_no_session_ends_the_connection(message: Fault | Ping) -> None:
    async with connected(saying(message)) as connection:
        box = inbox()
        connection.subscribe(session_id(), box)
        await connection.send(Close(session=session_id()))
        end = (await soon(box.get())).message
        assert isinstance(end, WireError)
        assert ("nonsense" in str(end)) == isinstance(message, Fault)
