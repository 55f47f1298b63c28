"""Generations over real peers on loopback that fail in every way: the text is the same as if none had."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from architectures import ARCHITECTURES, LAYERS
from support import WORDS, Peer, WatchedSpan, eventually, soon, tiny_checkpoint, tokenizer_of

from swarm import failover, router, standby
from swarm import session as sessions
from swarm.errors import DirectoryDown
from swarm.failover import SwarmIncomplete
from swarm.generation import GenerationStream, Threads
from swarm.model.checkpoint import Checkpoint
from swarm.model.client import ClientModels
from swarm.model.span import Span
from swarm.network.dialer import Dialer
from swarm.network.discovery import Connections
from swarm.network.lookup import ModelEntry
from swarm.network.records import PeerRecord
from swarm.network.survey import Sample
from swarm.request import Request
from swarm.results import Generation
from swarm.router import Router
from swarm.routing.chain import MissingLayers
from swarm.routing.health import Health

PROMPT = [5, 6, 7, 8, 9]
NEW = 32
STAGES = [(0, 1), (1, 3), (3, 4)]
WAYS = [{"window": 0}, {"window": 4, "depth": 1}, {}]
WAY_NAMES = ["plain", "window of 4", "streaming"]

Strike = Callable[["Swarm", GenerationStream], Awaitable[None]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_CACHE", str(folder / "cache"))
        checkpoint = tiny_checkpoint(folder / "target")
        assert checkpoint.fingerprint
    tokenizer_of(WORDS).save_pretrained(folder / "target")
    return checkpoint


@pytest.fixture(scope="module")
def models(checkpoint: Checkpoint, folder: Path) -> ClientModels:
    """The target's own weights, a little off, draft for it."""
    model = ARCHITECTURES["llama"].save(folder / "draft")
    for parameter in model.parameters():
        parameter.data.add_(0.02 * parameter.data.std() * parameter.data.sign())
    model.save_pretrained(folder / "draft")
    tokenizer_of(WORDS).save_pretrained(folder / "draft")
    return ClientModels.load(str(folder / "target"), str(folder / "draft"))


@pytest.fixture(scope="module")
def spans(checkpoint: Checkpoint) -> dict[tuple[int, int], Span]:
    all_spans = [(first, last) for first in range(LAYERS) for last in range(first + 1, LAYERS + 1)]
    return {span: Span.load(checkpoint, *span) for span in all_spans}


class Swarm:
    """Peers, and a client that needs no DHT to know of them."""

    def __init__(self, checkpoint: Checkpoint, spans: dict[tuple[int, int], Span], models: ClientModels) -> None:
        self._checkpoint, self._spans, self._models = checkpoint, spans, models
        self.up: list[Peer] = []
        self.states: dict[str, str] = {}  # by peer id, if it is another one than online
        self.health = Health()
        self._threads = Threads(ThreadPoolExecutor(1), ThreadPoolExecutor(1))
        self._dialer = Dialer()
        self._connections = Connections(self._dialer)
        self.know(())

    def know(self, records: Sequence[PeerRecord]) -> None:
        """Begin anew, as a client that knew these peers before."""
        self.router = Router(self, self._connections, self._checkpoint, "tiny", self.health, records)

    async def add(self, *spans: tuple[int, int], **options: int) -> None:
        for first, last in spans:
            span = WatchedSpan(self._spans[first, last])
            peer = Peer(span, self._checkpoint.fingerprint, **{"cache_tokens": 4096, **options})  # type: ignore[arg-type]
            self.up.append(await peer.__aenter__())

    async def survey(self, fingerprint: str, model_layers: int) -> Sample[PeerRecord]:
        records = tuple(self._record(peer) for peer in self.up)
        return Sample(records, (1.0,) * len(records), len(records), True)

    async def models(self) -> list[ModelEntry]:
        return []

    def _record(self, peer: Peer) -> PeerRecord:
        return peer.server.record(
            first_layer=peer.span.first,
            last_layer=peer.span.last,
            fingerprint=self._checkpoint.fingerprint,
            state=self.states.get(peer.id, "online"),
            tokens_per_second=1000.0,
        )

    def serving(self, stream: GenerationStream, stage: int) -> Peer:
        """Who serves a stage of a running generation."""
        peer_id = stream.route[stage].peer_id
        return next(peer for peer in self.up if peer.id == peer_id)

    def stream(self, prompt: Sequence[int] = PROMPT, **options: Any) -> GenerationStream:
        request = Request.of({"max_new_tokens": NEW, "logit_bias": {2: -100.0}, "patience_s": 5.0, **options})
        return GenerationStream(self._models, prompt, request, self._threads, self.router)

    async def write(self, strike: Strike | None = None, at: int = NEW // 3, **options: Any) -> Generation:
        """Generate, and let something happen after so many tokens."""
        stream, said = self.stream(**options), 0
        async for _ in stream:
            said += 1
            if said == at and strike is not None:
                await strike(self, stream)
        return stream.result

    async def close(self) -> None:
        for peer in self.up:
            peer.span.go_on.set()
        await self._connections.close()
        await self._dialer.close()
        for peer in self.up:
            await eventually(lambda peer=peer: peer.idle)
            await peer.__aexit__()


@asynccontextmanager
async def swarm_of(make: Callable[[], Swarm], *spans: tuple[int, int], **options: int) -> AsyncIterator[Swarm]:
    """In the end nothing may be left of any session on any peer that lives."""
    swarm = make()
    await swarm.add(*spans, **options)
    yield swarm
    await swarm.close()


@pytest.fixture
def make(checkpoint: Checkpoint, spans: dict[tuple[int, int], Span], models: ClientModels) -> Callable[[], Swarm]:
    return lambda: Swarm(checkpoint, spans, models)


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, spans: dict[tuple[int, int], Span], models: ClientModels) -> tuple[int, ...]:
    """What an undisturbed chain says."""

    async def write() -> Generation:
        async with swarm_of(lambda: Swarm(checkpoint, spans, models), *STAGES) as swarm:
            return await swarm.write()

    return asyncio.run(write()).token_ids


def killing(*stages: int) -> Strike:
    """Peers vanish without a word."""

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        for peer in [swarm.serving(stream, stage) for stage in stages]:
            swarm.up.remove(peer)
            await peer.die()

    return strike


def hanging(stage: int) -> Strike:
    """A peer computes for ever, and still answers."""

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        swarm.serving(stream, stage).span.go_on.clear()

    return strike


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize("stages", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
async def test_whoever_is_killed_the_text_is_the_same(
    stages: tuple[int, ...], way: dict[str, int], make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(killing(*stages), **way))
        assert text.token_ids == expected
        gone = [peer_id for failover in text.stats.failovers for peer_id in failover.peers]
        assert len(gone) == len(set(gone)) == len(stages)
        assert not any(map(swarm.health.usable, gone))
        assert all(f.pause_ms >= f.repair_ms > 0 for f in text.stats.failovers)


def when_all_stand_by(strike: Strike, count: int = len(STAGES)) -> Strike:
    async def wait(swarm: Swarm, stream: GenerationStream) -> None:
        await eventually(lambda: len(stream.standby) == count)
        await strike(swarm, stream)

    return wait


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize(
    ("stages", "stood_by"),
    [((0,), True), ((1,), True), ((2,), True), ((0, 2), True), ((0, 1), False), ((1, 2), False), ((0, 1, 2), False)],
)
async def test_whoever_stands_by_takes_the_place(
    stages: tuple[int, ...], stood_by: bool, way: dict[str, int], make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(when_all_stand_by(killing(*stages)), standby=True, **way))
        assert text.token_ids == expected
        gone = [peer_id for failover in text.stats.failovers for peer_id in failover.peers]
        assert len(gone) == len(set(gone)) == len(stages)
        if stood_by:
            assert [(f.standby, f.replayed_tokens) for f in text.stats.failovers] == [(True, 0)]


async def test_others_stand_by_for_those_that_took_a_place(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES * 3) as swarm:
        stream, said = swarm.stream(window=0, standby=True), 0
        async for _ in stream:
            said += 1
            if said % 8 == 4:
                await when_all_stand_by(killing(said // 8 % 3))(swarm, stream)
        assert stream.result.token_ids == expected
        assert [failover.standby for failover in stream.result.stats.failovers] == [True] * 4


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize("together", [False, True], ids=["alone", "with those for whom they stand by"])
async def test_those_that_stand_by_die(
    together: bool, way: dict[str, int], make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        ids = {stop.peer_id for stop in stream.standby} | ({stream.route[1].peer_id} if together else set())
        for peer in [peer for peer in swarm.up if peer.id in ids]:
            swarm.up.remove(peer)
            await peer.die()

    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        await swarm.add((1, 3))  # so that somebody is left
        text = await soon(swarm.write(when_all_stand_by(strike), standby=True, **way))
        assert text.token_ids == expected
        assert [f.layers for f in text.stats.failovers] == ([(1, 3)] if together else [])
        assert not any(f.standby for f in text.stats.failovers)


@pytest.mark.parametrize("stage", range(3))
async def test_the_place_of_one_that_hangs_is_taken_too(
    stage: int, make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LEAST_HANG_S", 0.2)
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(when_all_stand_by(hanging(stage)), standby=True))
        assert text.token_ids == expected
        assert [(f.layers, f.standby) for f in text.stats.failovers] == [(STAGES[stage], True)]


@pytest.mark.parametrize("stage", range(3))
async def test_one_that_stands_by_and_hangs_holds_nobody_up(
    stage: int, make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        ids = {stop.peer_id for stop in stream.standby if stop.layers == STAGES[stage]}
        for peer in swarm.up:
            if peer.id in ids:
                peer.span.go_on.clear()

    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(when_all_stand_by(strike), standby=True))
        assert text.token_ids == expected
        assert text.stats.failovers == ()


async def write_joined_by(
    swarm: Swarm, spans: list[tuple[int, int]], strike: Strike, small: Sequence[tuple[int, int]] = ()
) -> Generation:
    """Peers of these spans come when the text has begun, some of them too small for any session; as soon as one stands
    by, something happens."""
    stream, said = swarm.stream(standby=True), 0
    async for _ in stream:
        said += 1
        if said == 1:
            await swarm.add(*spans)
            await swarm.add(*small, cache_tokens=10)
        if said == NEW // 3:
            await when_all_stand_by(strike, 1)(swarm, stream)
    return stream.result


async def test_stages_for_which_there_is_nobody_go_without(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither parts of a stage help, nor peers without room."""
    monkeypatch.setattr(standby, "SEEK_S", 0.2)
    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(write_joined_by(swarm, [(1, 2), (2, 3), (2, 4)], killing(2), small=[(0, 1)]))
        assert text.token_ids == expected
        assert [(f.layers, f.standby) for f in text.stats.failovers] == [((3, 4), True)]


async def test_one_that_stands_by_elsewhere_is_taken_if_it_is_the_only_one(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "SEEK_S", 0.2)

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        (spare,) = stream.standby
        place = next(place for place, stop in enumerate(stream.route) if stop.layers != spare.layers)
        await killing(place)(swarm, stream)

    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(write_joined_by(swarm, [(0, 4)], strike))
        assert text.token_ids == expected
        assert [failover.standby for failover in text.stats.failovers] == [False]


@pytest.mark.parametrize("at", [1, NEW - 1])
async def test_at_the_first_and_at_the_last_token(
    at: int, make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        assert (await soon(swarm.write(killing(1), at=at))).token_ids == expected


async def test_one_after_the_other(make: Callable[[], Swarm], expected: tuple[int, ...]) -> None:
    """Every peer of the first chain, and some of those that took their places."""
    async with swarm_of(make, *STAGES * 3) as swarm:
        stream, said = swarm.stream(window=0), 0
        async for _ in stream:
            said += 1
            if said % 6 == 0:
                await killing(said // 6 % 3)(swarm, stream)
        assert stream.result.token_ids == expected
        assert len(stream.result.stats.failovers) == NEW // 6


async def test_several_peers_take_the_place_of_one(make: Callable[[], Swarm], expected: tuple[int, ...]) -> None:
    async with swarm_of(make, (0, 1), (1, 3), (3, 4), (1, 2), (2, 3)) as swarm:
        text = await soon(swarm.write(killing(1)))
        assert text.token_ids == expected
        assert [stop.layers for stop in text.route] == [(0, 1), (1, 2), (2, 3), (3, 4)]


async def test_a_new_first_peer_may_serve_a_part_of_its_layers(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, (0, 1), (1, 3), (3, 4)) as swarm:
        stream, said = swarm.stream(), 0
        async for _ in stream:
            said += 1
            if said == NEW // 3:
                await swarm.add((0, 4))
                await killing(0)(swarm, stream)
        assert stream.result.token_ids == expected
        assert stream.result.route[0].layers == (0, 1)


@pytest.mark.parametrize("stage", range(3))
async def test_a_peer_that_hangs_and_still_answers(
    stage: int, make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LEAST_HANG_S", 0.2)
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(hanging(stage)))
        assert text.token_ids == expected
        assert [f.layers for f in text.stats.failovers] == [STAGES[stage]]


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
async def test_nobody_is_replaced_because_an_answer_takes_long(
    way: dict[str, int], make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no patience at all every loop is a false alarm: all peers are asked, and the answer that came is taken."""
    monkeypatch.setattr(sessions, "LEAST_HANG_S", 0.0)
    monkeypatch.setattr(sessions, "HANG_LOOPS", 0.1)
    monkeypatch.setattr(failover, "LEAST_STANDSTILL_S", 0.05)
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(**way))
        assert text.token_ids == expected
        assert text.stats.failovers == ()


async def test_a_peer_that_fails_while_it_is_given_what_the_last_one_held(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, (0, 1), (1, 3), (3, 4)) as swarm:

        async def strike(swarm: Swarm, stream: GenerationStream) -> None:
            await swarm.add((1, 3))
            weak = swarm.up[-1]
            weak.span.go_on.clear()
            await killing(1)(swarm, stream)
            asyncio.get_running_loop().create_task(end_when_it_computes(swarm, weak))

        async def end_when_it_computes(swarm: Swarm, weak: Peer) -> None:
            await eventually(weak.span.entered.is_set)
            swarm.up.remove(weak)
            await weak.die()
            await swarm.add((1, 3))

        text = await soon(swarm.write(strike))
        assert text.token_ids == expected
        assert {failover.layers for failover in text.stats.failovers} == {(1, 3)}


async def test_a_peer_that_leaves_is_replaced_and_not_blamed(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        leaving: list[Peer] = []

        async def strike(swarm: Swarm, stream: GenerationStream) -> None:
            leaving.append(swarm.serving(stream, 1))
            swarm.states[leaving[0].id] = "draining"
            await leaving[0].handler.close()

        text = await soon(swarm.write(strike))
        assert text.token_ids == expected
        assert [failover.peers for failover in text.stats.failovers] == [(leaving[0].id,)]
        assert swarm.health.usable(leaving[0].id)


async def test_what_no_peer_keeps_is_computed_again_from_the_text(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES, history_bytes=0) as swarm:
        text = await soon(swarm.write(killing(2)))
        assert text.token_ids == expected
        assert text.stats.failovers[-1].layers == (0, 4)


async def test_a_place_that_is_empty_for_a_while_is_waited_for(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:

        async def strike(swarm: Swarm, stream: GenerationStream) -> None:
            await killing(1)(swarm, stream)
            late = asyncio.create_task(come())
            late.add_done_callback(lambda done: done.result())

        async def come() -> None:
            await asyncio.sleep(1.0)
            await swarm.add((1, 3))

        assert (await soon(swarm.write(strike))).token_ids == expected


async def test_without_anybody_what_was_said_is_kept_and_can_be_continued(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        with pytest.raises(SwarmIncomplete) as caught:
            await soon(swarm.write(killing(2), patience_s=0.5, temperature=0.7, seed=5))
        assert "layers 3:4" in str(caught.value)
        begun = caught.value.generation
        assert begun is not None
        assert begun.stats.finish_reason == "swarm_incomplete"
        said = begun.token_ids
        assert NEW // 3 <= len(said) < NEW
        await swarm.add((3, 4))
        left = NEW - len(said)
        rest = await swarm.write(prompt=[*PROMPT, *said], max_new_tokens=left, temperature=0.7, seed=5)
        whole = await swarm.write(temperature=0.7, seed=5)
        assert said + rest.token_ids == whole.token_ids


async def test_a_chain_that_cannot_be_opened_is_given_up_for_another(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, (0, 4), cache_tokens=10) as swarm:  # too small for any session
        await swarm.add((0, 2), (2, 4))
        text = await soon(swarm.write())
        assert text.token_ids == expected
        assert swarm.health.usable(swarm.up[0].id)


async def test_missing_layers_are_waited_for_only_if_somebody_is_said_to_serve_them(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, (0, 1), (1, 3)) as swarm:
        with pytest.raises(MissingLayers) as caught:
            await soon(swarm.write(patience_s=60.0))
        assert not caught.value.expected
        await swarm.add((3, 4))
        joining = swarm.up[-1].id
        swarm.states[joining] = "joining"
        with pytest.raises(MissingLayers) as caught:
            await soon(swarm.write(patience_s=0.2))
        assert caught.value.expected
        asyncio.get_running_loop().call_later(0.5, swarm.states.clear)
        assert (await soon(swarm.write())).token_ids == expected


async def test_a_directory_that_is_down_is_no_hindrance_while_peers_are_known(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: object) -> None:
        raise DirectoryDown("unplugged")

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
    async def forgetful(*_: object) -> Sample[PeerRecord]:
        return Sample((), (), 0, True)

    monkeypatch.setattr(router, "FRESH_S", 0.0)
    async with swarm_of(make, *STAGES) as swarm:
        await soon(swarm.write())
        monkeypatch.setattr(swarm, "survey", forgetful)
        assert (await soon(swarm.write())).token_ids == expected
        monkeypatch.setattr(router, "RECORD_LIFETIME_S", 0.0)
        with pytest.raises(MissingLayers):
            await soon(swarm.write())
