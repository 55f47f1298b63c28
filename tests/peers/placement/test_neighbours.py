"""Whom a peer measures, and what it says of them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from helpers.loopback import Server, new_member, pong, soon
from peers.placement.neighbours import Neighbours, likely
from swarm.network.dht.records import MAX_NEIGHBOURS, PeerRecord, neighbour_key
from swarm.network.links.dialer import Dialer


def record(first: int, last: int) -> PeerRecord:
    server = Server(pong)
    server.address = "127.0.0.1:1"
    return server.record(first_layer=first, last_layer=last)


class RecordSource:
    def __init__(self, records: list[PeerRecord]) -> None:
        self.records = records

    async def peers(self, fingerprint: str, model_layers: int) -> list[PeerRecord]:
        return self.records


@pytest.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    dialer = Dialer(new_member())
    neighbours = Neighbours(dialer)
    yield neighbours
    await neighbours.close()
    await dialer.close()


def test_only_peers_that_may_come_before_or_after_are_measured() -> None:
    mine = record(1, 3)
    before, overlapping, after = record(0, 1), record(0, 2), record(2, 4)
    others = [record(0, 1).model_copy(update={"last_layer": 1}), record(3, 4)]
    unrelated = record(1, 3)  # it serves just our layers
    chosen = likely([mine, before, overlapping, after, *others, unrelated], mine, [])
    assert {peer.peer_id for peer in chosen} == {
        p.peer_id for p in (before, overlapping, after, *others)
    }


def test_the_nearest_stay_and_the_others_are_drawn_by_lot() -> None:
    mine, many = record(0, 2), [record(2, 4) for _ in range(3 * MAX_NEIGHBOURS)]
    nearest = [peer.peer_id for peer in many[:MAX_NEIGHBOURS]]
    seen: set[str] = set()
    for _ in range(50):
        chosen = [peer.peer_id for peer in likely(many, mine, nearest)]
        assert len(set(chosen)) == len(chosen) == MAX_NEIGHBOURS
        assert chosen[: MAX_NEIGHBOURS // 2] == nearest[: MAX_NEIGHBOURS // 2]
        seen |= set(chosen)
    assert len(seen) == len(many)


async def test_who_answers_is_announced_with_its_time(neighbours: Neighbours) -> None:
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(Server(pong))
        far = await stack.enter_async_context(Server(pong, delay_ms=30.0))
        mine, dead = record(0, 2), record(2, 4)
        there = [server.record(first_layer=2, last_layer=4) for server in (far, near)]
        assert neighbours.announced == ()
        await soon(neighbours.measure(RecordSource([mine, dead, *there]), mine))
        (first, near_tenths), (second, far_tenths) = neighbours.announced
        assert (first, second) == tuple(
            neighbour_key(server.identity.peer_id) for server in (near, far)
        )
        assert near_tenths < far_tenths
        # half of the way there and back, of which only the way back is held up
        assert far_tenths >= 150
        assert mine.model_copy(update={"neighbours": neighbours.announced})
        # Who is gone is not announced again, and no connection to it is kept.
        await soon(neighbours.measure(RecordSource([mine, there[1]]), mine))
        assert [key for key, _ in neighbours.announced] == [neighbour_key(near.identity.peer_id)]
        assert set(neighbours._connections._open) == {near.identity.peer_id}
