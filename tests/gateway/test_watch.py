"""The swarm as pages show it; nothing is read while no page is open."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from helpers.loopback import eventually, soon
from swarm.client.status import ModelStatus, PeerStatus
from swarm.errors import DirectoryDown
from swarm.gateway.watch import GONE_S, MAX_ROWS, PeerHistory, SwarmView, Watch, coverage

LAYERS = 8


def peer(
    name: str, first: int = 0, last: int = LAYERS, *, answers: bool = True, state: str = "online"
) -> PeerStatus:
    path, rtt_ms = ("direct", 5.0) if answers else (None, None)
    return PeerStatus(name, (first, last), "float32", 10.0, 100, state, "swarm/1", rtt_ms, path)  # type: ignore[arg-type]


def report(*peers: PeerStatus, missing: Sequence[tuple[int, int]] = ()) -> ModelStatus:
    return ModelStatus("tiny", "f" * 32, LAYERS, peers, tuple(missing))


def states(view: SwarmView) -> dict[str, str]:
    return {row.peer_id: row.state for row in view.models[0].peers}


def test_coverage_counts_who_serves_each_layer() -> None:
    assert coverage([(0, 4), (2, 6)], 8) == [(0, 2, 1), (2, 4, 2), (4, 6, 1), (6, 8, 0)]
    assert coverage([], 8) == [(0, 8, 0)]
    assert coverage([(0, 3), (3, 8)], 8) == [(0, 8, 1)]
    assert coverage([(0, 8), (0, 8)], 8) == [(0, 8, 2)]


def test_only_peers_that_answer_and_take_work_cover_layers() -> None:
    seen = [peer("a", 0, 4), peer("b", 4, 8, answers=False), peer("c", 4, 6, state="joining")]
    view = PeerHistory().view([report(*seen, missing=[(4, 8)])], 0.0)
    assert states(view) == {"a": "online", "b": "unreachable", "c": "joining"}
    assert view.models[0].coverage == ((0, 4, 1), (4, 8, 0))
    assert view.models[0].loading == ((4, 6),)


def test_a_peer_that_vanishes_is_shown_as_gone_for_a_while() -> None:
    memory = PeerHistory()
    memory.view([report(peer("a"), peer("b"))], 0.0)
    memory.view([report(peer("a"), peer("b", answers=False))], 2.0)
    view = memory.view([report(peer("a"))], 4.0)
    assert states(view) == {"a": "online", "b": "gone"}
    assert [row.seen_s for row in view.models[0].peers] == [0.0, 4.0]
    assert states(memory.view([report(peer("a"))], 2.0 + GONE_S)) == {"a": "online"}
    back = memory.view([report(peer("a"), peer("b", answers=False))], 60.0)
    assert [row.seen_s for row in back.models[0].peers] == [0.0, None]


def test_of_a_large_swarm_the_same_peers_are_shown_and_the_rest_summed() -> None:
    crowd = [peer(f"p{i:04}", answers=i % 2 == 0) for i in range(MAX_ROWS + 50)]
    memory = PeerHistory()
    (model,) = memory.view([report(*crowd)], 0.0).models
    assert len(model.peers) == MAX_ROWS
    assert model.rest is not None
    assert model.rest.peers == 50
    online = sum(row.state == "online" for row in model.peers) + model.rest.online
    assert model.coverage == ((0, LAYERS, online),)
    assert model.rest.tokens_per_second == 10.0 * model.rest.online
    (again,) = memory.view([report(*reversed(crowd))], 1.0).models
    assert [row.peer_id for row in again.peers] == [row.peer_id for row in model.peers]


class Swarm:
    """A swarm whose reads are counted."""

    def __init__(self) -> None:
        self.looks = 0
        self.at_once = self.most_at_once = 0
        self.error: Exception | None = None
        self.shows = asyncio.Event()
        self.shows.set()

    async def look(self) -> Sequence[ModelStatus]:
        self.looks += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.shows.wait()
            if self.error:
                raise self.error
            return [report(replace(peer("a"), free_cache_tokens=self.looks))]
        finally:
            self.at_once -= 1


@asynccontextmanager
async def watching(swarm: Swarm, **options: float) -> AsyncIterator[Watch]:
    async with Watch(swarm.look, **{"every_s": 0.01, **options}) as watch:
        yield watch


async def test_each_look_is_told_to_all_who_watch_and_there_is_one_at_a_time() -> None:
    swarm = Swarm()
    async with (
        watching(swarm) as watch,
        aclosing(watch.views()) as one,
        aclosing(watch.views()) as other,
    ):
        first = await soon(anext(one))
        assert first.models[0].peers[0].free_cache_tokens == 1
        seen = [await soon(anext(views)) for views in (other, one, other)]
        assert all(view.models and not view.trouble for view in seen)
        assert swarm.most_at_once == 1


async def test_nobody_looks_while_nobody_watches() -> None:
    swarm = Swarm()
    async with watching(swarm) as watch:
        assert swarm.looks == 0
        async with aclosing(watch.views()) as views:
            await soon(anext(views))
        await eventually(lambda: watch._looking is not None and watch._looking.done())
        looks = swarm.looks
        # what is told is looked up, and not what was seen before
        async with aclosing(watch.views()) as views:
            assert (await soon(anext(views))).models[0].peers[0].free_cache_tokens == looks + 1


async def test_a_slow_reader_gets_the_newest_view() -> None:
    swarm = Swarm()
    async with watching(swarm) as watch, aclosing(watch.views()) as views:
        await soon(anext(views))
        await eventually(lambda: swarm.looks > 5)
        assert (await soon(anext(views))).models[0].peers[0].free_cache_tokens >= 4


async def test_after_a_look_that_takes_long_there_is_a_pause_as_long() -> None:
    swarm = Swarm()

    def clock() -> float:
        """Each look takes a quarter of an hour."""
        return 900.0 * swarm.looks

    async with (
        Watch(swarm.look, every_s=0.01, clock=clock) as watch,
        aclosing(watch.views()) as views,
    ):
        await soon(anext(views))
        await asyncio.sleep(0.1)
        assert swarm.looks == 1


async def test_looks_that_fail_are_told_beside_what_was_seen_before() -> None:
    swarm = Swarm()
    async with watching(swarm, timeout_s=0.05) as watch, aclosing(watch.views()) as views:
        await soon(anext(views))
        for error in (DirectoryDown("nobody answers"), RuntimeError("a bug")):
            swarm.error = error
            view = await _until(views, trouble=True)
            assert len(view.models) == 1
            assert "bug" not in view.trouble
            swarm.error = None
            await _until(views, trouble=False)
        swarm.shows.clear()
        assert "0.05 s" in (await _until(views, trouble=True)).trouble


async def _until(views: AsyncIterator[SwarmView], *, trouble: bool) -> SwarmView:
    while True:
        view: SwarmView = await soon(anext(views))  # type: ignore[arg-type]
        if bool(view.trouble) == trouble:
            return view
