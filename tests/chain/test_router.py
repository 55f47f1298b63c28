"""Which peers a client knows of, and when it asks again."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.loopback import eventually, soon
from helpers.records import peer_record
from helpers.swarm_in_process import STAGES, Swarm, swarm_of
from swarm.chain import book
from swarm.chain import router as router_module
from swarm.chain.book import PeerBook
from swarm.chain.router import Router
from swarm.client.generation import GenerationStream
from swarm.errors import DirectoryDown, MissingLayers
from swarm.identity import Identity
from swarm.network.dht.crawl import CrawlSample
from swarm.network.dht.lookup import ModelEntry
from swarm.network.dht.records import PeerRecord
from swarm.routing.health import Health


async def test_while_a_text_is_written_those_who_come_are_met_beforehand(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "WATCH_S", 0.05)

    async def come_and_die(swarm: Swarm, stream: GenerationStream) -> None:
        await swarm.add((1, 3))
        await eventually(lambda: swarm.connected(swarm.up[-1]))
        monkeypatch.setattr(swarm, "survey", down)  # a survey gets no answer from now on
        leaving = swarm.serving(stream, 1)
        swarm.up.remove(leaving)
        await leaving.die()

    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(swarm.write(come_and_die))
        assert text.token_ids == expected
        (failover,) = text.stats.failovers
        assert failover.waited_ms == 0


async def down(*_: object) -> None:
    raise DirectoryDown("unplugged")


async def test_a_directory_that_is_down_is_no_hindrance_while_peers_are_known(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        records = (await swarm.survey("", 0)).records
        monkeypatch.setattr(swarm, "survey", down)
        with pytest.raises(DirectoryDown):
            await soon(swarm.write())
        swarm.know(records)
        assert (await soon(swarm.write())).token_ids == expected


async def test_records_that_got_lost_in_the_directory_are_believed_for_a_while(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgetful(*_: object) -> CrawlSample[PeerRecord]:
        return CrawlSample((), (), 0, True)

    monkeypatch.setattr(router_module, "FRESH_S", 0.0)
    async with swarm_of(make, *STAGES) as swarm:
        await soon(swarm.write())
        monkeypatch.setattr(swarm, "survey", forgetful)
        assert (await soon(swarm.write())).token_ids == expected
        monkeypatch.setattr(book, "RECORD_LIFETIME_S", 0.0)
        with pytest.raises(MissingLayers):
            await soon(swarm.write())


# Many at once, with the knowledge of one.

SPANS = [(0, 2), (0, 2), (2, 4), (2, 4), (0, 4), (1, 3)]
LAYERS = 4
IDS = [Identity.generate().peer_id for _ in SPANS]
RECORDS = {
    peer_id: peer_record(peer_id, first_layer=first, last_layer=last, model_layers=LAYERS)
    for peer_id, (first, last) in zip(IDS, SPANS, strict=True)
}


class Turns:
    """Lets each wait take so many turns of the event loop: these numbers, again and again."""

    def __init__(self, turns: Sequence[int]) -> None:
        self._turns = itertools.cycle(turns or [0])

    async def wait(self) -> None:
        for _ in range(next(self._turns)):
            await asyncio.sleep(0)


class Directory:
    """Names all peers, and counts surveys."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.surveys = 0
        self.at_once = 0
        self.most = 0

    async def survey(self, fingerprint: str, model_layers: int) -> CrawlSample[PeerRecord]:
        self.surveys += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self._turns.wait()
        finally:  # the last caller may be cancelled
            self.at_once -= 1
        return CrawlSample(tuple(RECORDS.values()), (1.0,) * len(RECORDS), len(RECORDS), True)

    async def models(self) -> list[ModelEntry]:
        return []


class Reaching:
    """Reaches all peers; a connection is known by its peer."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def reach(self, records: Sequence[PeerRecord]) -> dict[str, Any]:
        await self._turns.wait()
        return {r.peer_id: SimpleNamespace(peer_id=r.peer_id, rtt_ms=10.0) for r in records}

    async def keep(self, peer_ids: Collection[str], lately_s: float = 0.0) -> None:
        await self._turns.wait()


def router_of(turns: Sequence[int], clock: Callable[[], float]) -> tuple[Router, Directory]:
    waits = Turns(turns)
    directory = Directory(waits)
    checkpoint: Any = SimpleNamespace(
        num_layers=LAYERS,
        fingerprint="0" * 32,
        name="demo",
        plain_name="demo",
        siblings={},
        quantization=None,
    )
    connections: Any = Reaching(waits)
    known = PeerBook(LAYERS, Health(clock, clock))
    router = Router(directory, connections, checkpoint, known, clock=clock, rng=random.Random(0))
    return router, directory


async def begin_at(turn: int, work: Awaitable[Any]) -> Any:
    for _ in range(turn):
        await asyncio.sleep(0)
    return await work


@settings(deadline=None)
@given(
    asking=st.lists(
        st.tuples(st.integers(0, 6), st.sets(st.sampled_from(IDS), max_size=2)),
        min_size=1,
        max_size=6,
    ),
    news=st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from(["outdated", "failed"]), st.sampled_from(IDS))
    ),
    cancelled=st.sets(st.integers(0, 5)),
    turns=st.lists(st.integers(0, 6), min_size=1, max_size=20),
    stale=st.booleans(),
)
def test_many_chains_at_once_are_each_what_was_asked_for(
    asking: list[tuple[int, set[str]]],
    news: list[tuple[int, str, str]],
    cancelled: set[int],
    turns: list[int],
    stale: bool,
) -> None:
    """Whatever is found out meanwhile, and whichever caller leaves: a chain is whole, avoids the
    peers that it must avoid, and each peer comes with its own record and connection. At most one
    survey runs at a time."""

    async def live() -> None:
        now = [100.0]
        router, directory = router_of(turns, lambda: now[0])
        await router.chain()
        now[0] += 2 * router_module.FRESH_S * stale
        asked = [asyncio.create_task(begin_at(turn, router.chain(avoid))) for turn, avoid in asking]
        for now_at in range(9):
            for turn, event, peer_id in news:
                if turn == now_at:
                    getattr(router, event)(peer_id)
            await asyncio.sleep(0)
        for place in cancelled:
            if place < len(asked):
                asked[place].cancel()
        chains = await soon(asyncio.gather(*asked, return_exceptions=True))
        for place, ((_, avoid), chain) in enumerate(zip(asking, chains, strict=True)):
            if isinstance(chain, BaseException):
                missing = isinstance(chain, MissingLayers) and (len(news) + len(avoid) > 1)
                assert missing or (
                    place in cancelled and isinstance(chain, asyncio.CancelledError)
                ), repr(chain)
                continue
            assert [link.stage.first for link in chain] == [
                0,
                *(link.stage.last for link in chain[:-1]),
            ]
            assert chain[-1].stage.last == LAYERS
            assert not avoid & {link.peer_id for link in chain}
            for link in chain:
                assert link.record == RECORDS[link.peer_id]
                assert link.connection.peer_id == link.peer_id
        assert directory.most <= 1

    asyncio.run(live())


async def test_of_two_at_once_each_gets_its_own_chain() -> None:
    """The better chain is chosen while the caller that must avoid it waits."""
    router, _ = router_of([4], lambda: 100.0)
    await router.chain()
    (best,) = await router.chain()
    without = asyncio.create_task(router.chain({best.peer_id}))
    for turns in range(12):
        await asyncio.sleep(0)
        both = await asyncio.gather(router.chain({best.peer_id}), begin_at(turns, router.chain()))
        assert best.peer_id not in {link.peer_id for link in both[0]}
        assert both[1] == [best]
    assert best.peer_id not in {link.peer_id for link in await without}


async def test_stale_knowledge_of_many_is_renewed_once() -> None:
    now = [100.0]
    router, directory = router_of([3], lambda: now[0])
    await asyncio.gather(*(router.chain() for _ in range(20)))
    assert directory.surveys == 1
    now[0] += 2 * router_module.FRESH_S
    await asyncio.gather(*(router.chain() for _ in range(20)))
    assert directory.surveys == 2


async def test_where_layers_are_missing_the_directory_is_read_once_for_each_question() -> None:
    """It does not change between two surveys in a row, and each takes many nodes' time."""
    now = [100.0]
    router, directory = router_of([], lambda: now[0])
    avoid = {peer_id for peer_id, (_, last) in zip(IDS, SPANS, strict=True) if last == LAYERS}
    for surveys in (1, 2, 3):  # at the start, with what is known, and when that is stale
        with pytest.raises(MissingLayers):
            await soon(router.chain(avoid))
        assert directory.surveys == surveys
        now[0] += router_module.FRESH_S * surveys
    assert await soon(router.spare(2, 4, avoid, "float32")) is None
    assert directory.surveys == 4


async def test_what_is_outdated_since_the_directory_was_asked_is_not_believed() -> None:
    router, _ = router_of([5], lambda: 100.0)
    looking = asyncio.create_task(router._survey())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    router.outdated(IDS[0])
    await soon(looking)
    assert IDS[0] not in router.book.records
    await soon(router._survey())
    assert IDS[0] in router.book.records


async def test_a_stage_that_becomes_outdated_while_it_is_asked_is_no_error() -> None:
    router, _ = router_of([5], lambda: 100.0)
    chain = await soon(router.chain())
    asking = asyncio.create_task(router.links([link.stage for link in chain]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    router.outdated(chain[0].peer_id)
    assert [link.stage for link in await soon(asking)] == [link.stage for link in chain]


async def test_a_peer_that_failed_is_worse_than_any_other_and_stands_by_for_none() -> None:
    router, _ = router_of([], lambda: 100.0)
    router.failed(IDS[0])
    router.failed(IDS[4])
    assert not {IDS[0], IDS[4]} & {link.peer_id for link in await soon(router.chain())}
    assert await soon(router.spare(0, 2, {IDS[1]}, "float32")) is None


@pytest.mark.parametrize(("dtype", "place"), [("float32", 0), ("bfloat16", 1)])
async def test_who_replaces_others_or_stands_by_has_the_same_dtype_if_there_is_such_a_peer(
    dtype: str, place: int
) -> None:
    router, _ = router_of([], lambda: 100.0)
    other = RECORDS[IDS[1]].model_copy(update={"dtype": "bfloat16"})
    router.book.surveyed([RECORDS[IDS[0]], other], True, 100.0)
    (found,) = await soon(router.span(0, 2, (), dtype))
    spare = await soon(router.spare(0, 2, (), dtype))
    assert found.peer_id == spare.peer_id == IDS[place]
    rather = await soon(router.spare(0, 2, {IDS[place]}, dtype))
    assert rather.peer_id == IDS[1 - place], "another dtype is better than none"
    (found,) = await soon(router.span(0, 2, {IDS[place]}, dtype))
    assert found.peer_id == IDS[1 - place]


async def test_the_last_peer_of_some_layers_is_asked_again_but_not_if_it_lied() -> None:
    router, _ = router_of([], lambda: 100.0)
    avoid = {peer_id for peer_id, span in zip(IDS, SPANS, strict=True) if span != (0, 4)}
    router.failed(IDS[4])
    assert [link.peer_id for link in await soon(router.chain(avoid))] == [IDS[4]]
    router.health.ban(IDS[4])
    with pytest.raises(MissingLayers):
        await soon(router.chain(avoid))
