"""Arrivals wait in a queue that is bounded in number and in bytes."""

import asyncio

import pytest

from helpers.loopback import session_id
from swarm.network.links.arrivals import Arrival, ArrivalQueue
from swarm.network.links.link import LinkClosed
from swarm.wire.messages import Opened


def arrival(nbytes: int) -> Arrival:
    return Arrival("the-peer", Opened(session=session_id(1)), 0.0, nbytes)


END = Arrival("the-peer", LinkClosed("127.0.0.1:1", "the other side left"), 0.0)


def test_bytes_that_wait_are_bounded_and_free_again_when_they_are_read() -> None:
    queue = ArrivalQueue(8, most_bytes=100)
    queue.put_nowait(arrival(60))
    queue.put_nowait(arrival(40))
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(arrival(1))
    assert queue.get_nowait().nbytes == 60
    queue.put_nowait(arrival(60))
    assert queue.nbytes == 100
    assert [queue.get_nowait().nbytes for _ in range(2)] == [40, 60]
    assert queue.nbytes == 0


def test_the_number_that_waits_is_bounded() -> None:
    queue = ArrivalQueue(2, most_bytes=100)
    queue.put_nowait(arrival(1))
    queue.put_nowait(arrival(1))
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(arrival(1))
    assert queue.nbytes == 2


@pytest.mark.parametrize(("size", "waiting"), [(1, 0), (2, 1)], ids=["by number", "by bytes"])
def test_the_end_of_a_connection_comes_into_a_full_queue(size: int, waiting: int) -> None:
    queue = ArrivalQueue(size, most_bytes=100)
    queue.put_nowait(arrival(100))
    queue.put_last(END)
    left = [queue.get_nowait() for _ in range(queue.qsize())]
    assert (len(left), left[-1]) == (waiting + 1, END)
