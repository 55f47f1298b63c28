"""Answers that are set aside are read in their order, and bounded."""

import pytest

from helpers.loopback import session_id
from swarm.chain import set_aside
from swarm.chain.events import Received
from swarm.chain.set_aside import OVERHEAD_BYTES, SetAside
from swarm.wire.messages import Result
from swarm.wire.tensors import WireTensor


def put(book: SetAside, first: int, nbytes: int = 8) -> None:
    hidden = WireTensor(dtype="float32", tokens=1, hidden=nbytes // 4, data=bytes(nbytes))
    result = Result(session=session_id(), epoch=0, first=first, count=1, hidden=hidden)
    book.put(Received("the-peer", result, 0.0), result)


def left(book: SetAside) -> list[int]:
    found = []
    while event := book.take():
        assert isinstance(event.message, Result)
        found.append(event.message.first)
    return found


def test_answers_are_taken_in_the_order_in_which_they_came() -> None:
    book = SetAside(most_bytes=1 << 20)
    for first in (3, 1, 2):
        put(book, first)
    assert left(book) == [3, 1, 2]
    put(book, 4)
    book.clear()
    assert left(book) == []


def test_the_oldest_are_dropped_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_aside, "MOST", 2)
    book = SetAside(most_bytes=1 << 20)
    for first in (1, 2, 3):
        put(book, first)
    assert left(book) == [2, 3]


def test_the_oldest_are_dropped_where_they_are_too_large() -> None:
    book = SetAside(most_bytes=2 * OVERHEAD_BYTES + 1000)
    put(book, 1, nbytes=400)
    put(book, 2, nbytes=400)
    put(book, 3, nbytes=600)
    assert left(book) == [2, 3]
    put(book, 4, nbytes=2000)
    assert left(book) == []
