"""Peers that look for layers at the same time, over a board of records instead of a network."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from helpers.loopback import soon
from helpers.records import peer_record
from peers.placement import block_selection
from peers.placement.block_selection import BlockSelection, respected
from swarm.errors import DirectoryDown
from swarm.identity import Identity
from swarm.network.dht.records import PeerRecord
from swarm.routing.cuts import Cuts
from swarm.routing.placement import Span

LAYERS = 8
CAPACITY = 2
ANYWHERE = Cuts.anywhere(LAYERS)
IDS = sorted(Identity.generate().peer_id for _ in range(8))


def record_of(peer_id: str, span: Span, state: str = "online", speed: float = 1.0) -> PeerRecord:
    first, last = span
    return peer_record(
        peer_id,
        model_layers=LAYERS,
        first_layer=first,
        last_layer=last,
        tokens_per_second=speed,
        state=state,
    )


@dataclass
class Board:
    """What everybody has published."""

    records: dict[str, PeerRecord] = field(default_factory=dict)
    claims: list[tuple[str, Span]] = field(default_factory=list)
    down: int = 0  # how many more times nobody can look
    deaf: bool = False

    def put(self, peer_id: str, span: Span, state: str = "online") -> None:
        self.records[peer_id] = record_of(peer_id, span, state)

    def selection(self, peer_id: str, seed: int = 0, cuts: Cuts = ANYWHERE) -> BlockSelection:
        async def claim(span: Span) -> None:
            self.claims.append((peer_id, span))
            self.put(peer_id, span, "joining")

        rng = random.Random(f"{peer_id} {seed}")
        return BlockSelection(peer_id, cuts, CAPACITY, _View(self, peer_id), claim, rng)

    def counts(self) -> list[int]:
        spans = [(record.first_layer, record.last_layer) for record in self.records.values()]
        return [sum(first <= layer < last for first, last in spans) for layer in range(LAYERS)]


class _View:
    def __init__(self, board: Board, peer_id: str) -> None:
        self._board, self._peer_id = board, peer_id

    @property
    def peers(self) -> int:
        return len(self._board.records)

    async def take(self, mine: Span | None = None) -> list[PeerRecord] | None:
        await asyncio.sleep(0.001)
        if self._board.down:
            self._board.down -= 1
            raise DirectoryDown("unplugged")
        others = [
            record for record in self._board.records.values() if record.peer_id != self._peer_id
        ]
        return None if self._board.deaf else others


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_selection, "CLAIM_PAUSE_S", 0.02)
    monkeypatch.setattr(block_selection, "CONFIRM_PAUSE_S", 0.05)


@pytest.mark.parametrize("seed", range(5))
async def test_all_at_once_and_yet_every_layer_is_served_twice(seed: int) -> None:
    board = Board()
    spans = await soon(
        asyncio.gather(*(board.selection(peer_id, seed).choose() for peer_id in IDS))
    )
    assert board.counts() == [2] * LAYERS
    assert [(r.first_layer, r.last_layer) for _, r in sorted(board.records.items())] == list(spans)


async def test_a_claim_that_was_there_before_counts_whatever_its_id() -> None:
    board = Board()
    board.put(IDS[7], (0, 2), "joining")
    first = await soon(board.selection(IDS[0]).choose())
    assert first != (0, 2)


async def test_whoever_has_precedence_keeps_its_claim() -> None:
    board = Board()
    for i, first in enumerate((0, 2, 4)):
        board.put(IDS[i], (first, first + 2))
    # the second best place: no lot is drawn
    board.records[IDS[2]] = record_of(IDS[2], (4, 6), speed=0.5)
    low, high = board.selection(IDS[3]), board.selection(IDS[4])
    spans = await soon(asyncio.gather(low.choose(), high.choose()))
    assert spans[0] == (6, 8)
    assert spans[1] != (6, 8)
    assert spans[1] == (4, 6)


async def test_of_two_that_could_close_a_gap_one_moves() -> None:
    board = Board()
    for i, first in enumerate((0, 0, 2, 4)):
        board.put(IDS[i], (first, first + 2))
    moves = await soon(
        asyncio.gather(*(board.selection(IDS[i]).reconsider(0, 2, 1.0) for i in (0, 1)))
    )
    assert (
        sorted(moves, key=str) == [(6, 8), None] or sorted(moves, key=str) == [(6, 8), None][::-1]
    )
    stayed = IDS[moves.index(None)]
    board.put(stayed, (0, 2))
    assert min(board.counts()) == 1


async def test_layers_are_not_left_to_those_who_only_promise_to_serve_them() -> None:
    board = Board()
    for i, first in enumerate((2, 4)):
        board.put(IDS[i], (first, first + 2))
    board.put(IDS[2], (0, 2), "joining")
    assert await soon(board.selection(IDS[3]).reconsider(0, 2, 1.0)) is None
    assert board.claims == []
    board.put(IDS[2], (0, 2), "online")
    assert await soon(board.selection(IDS[3]).reconsider(0, 2, 1.0)) == (6, 8)


async def test_layers_that_cannot_be_parted_are_chosen_together() -> None:
    board, cuts = Board(), Cuts(LAYERS, (1, 3, 5, 7))
    for peer_id in IDS[:3]:
        assert await soon(board.selection(peer_id, cuts=cuts).choose()) in {(1, 3), (3, 5), (5, 7)}
    assert board.counts() == [0, *[1] * 6, 0]
    assert await soon(board.selection(IDS[3], cuts=cuts).choose()) in {(0, 1), (7, 8)}


async def test_nobody_answers_so_nothing_is_decided() -> None:
    board = Board(deaf=True)
    assert await soon(board.selection(IDS[0]).reconsider(0, 2, 1.0)) is None
    assert await soon(board.selection(IDS[0]).choose()) in {(0, 2), (2, 4), (4, 6), (6, 8)}


async def test_without_a_directory_a_peer_stays_and_a_new_one_fails() -> None:
    board = Board(down=1)
    assert await soon(board.selection(IDS[0]).reconsider(0, 2, 1.0)) is None
    board.down = block_selection.LOOK_TRIES
    with pytest.raises(DirectoryDown):
        await soon(board.selection(IDS[0]).choose())
    board.down = 1
    assert await soon(board.selection(IDS[0]).choose())


async def test_a_big_swarm_looks_less_often() -> None:
    board = Board()
    board.put(IDS[0], (0, 2))
    assert 5.0 <= board.selection(IDS[1]).pause_s() <= 15.0
    for number in range(320):
        board.records[str(number)] = record_of(IDS[0], (0, 2))
    assert 50.0 <= board.selection(IDS[1]).pause_s() <= 151.0


def test_later_claims_count_only_with_precedence() -> None:
    before = record_of(IDS[5], (0, 2), "joining")
    elsewhere = record_of(IDS[5], (2, 4), "joining")
    low, high = (record_of(IDS[i], (0, 2), "joining") for i in (0, 6))
    serving = record_of(IDS[7], (0, 2))
    assert respected([before, low, high, serving], IDS[3], {IDS[5]: before}) == [
        before,
        low,
        serving,
    ]
    assert respected([elsewhere], IDS[3], {IDS[5]: before}) == []
