"""Peers that stand by take the place of those that fail: the text is the same, and nothing is
replayed."""

from collections.abc import Callable, Sequence

import pytest

from helpers.loopback import soon
from helpers.strikes import WAY_NAMES, WAYS, hanging, killing, when_all_stand_by
from helpers.swarm_in_process import NEW, STAGES, Strike, Swarm, swarm_of
from swarm.chain import in_flight, spares, standstill
from swarm.client.generation import GenerationStream
from swarm.outputs import Generation


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize(
    ("stages", "stood_by"),
    [
        ((0,), True),
        ((1,), True),
        ((2,), True),
        ((0, 2), True),
        ((0, 1), False),
        ((1, 2), False),
        ((0, 1, 2), False),
    ],
)
async def test_whoever_stands_by_takes_the_place(
    stages: tuple[int, ...],
    stood_by: bool,
    way: dict[str, int],
    make: Callable[[], Swarm],
    expected: tuple[int, ...],
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
@pytest.mark.parametrize(
    "together", [False, True], ids=["alone", "with those for whom they stand by"]
)
async def test_those_that_stand_by_die(
    together: bool, way: dict[str, int], make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        ids = {stop.peer_id for stop in stream.standby} | (
            {stream.route[1].peer_id} if together else set()
        )
        for peer in [peer for peer in swarm.up if peer.id in ids]:
            swarm.up.remove(peer)
            await peer.die()

    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        await swarm.add((1, 3))  # so that a peer is left
        text = await soon(swarm.write(when_all_stand_by(strike), standby=True, **way))
        assert text.token_ids == expected
        assert [f.layers for f in text.stats.failovers] == ([(1, 3)] if together else [])
        assert not any(f.standby for f in text.stats.failovers)


@pytest.mark.parametrize("stage", range(3))
async def test_the_place_of_one_that_hangs_is_taken_too(
    stage: int,
    make: Callable[[], Swarm],
    expected: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "LEAST_HANG_S", 0.2)
    monkeypatch.setattr(standstill, "BATCH_S", 2.0)
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
    swarm: Swarm,
    spans: list[tuple[int, int]],
    strike: Strike,
    small: Sequence[tuple[int, int]] = (),
) -> Generation:
    """Peers of these spans come when the text has begun, some of them too small for any session; as
    soon as one stands by, something happens."""
    stream, said = swarm.stream(standby=True, window=0), 0  # no token is ahead of the failure
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
    monkeypatch.setattr(spares, "SEEK_S", 0.2)
    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(
            write_joined_by(swarm, [(1, 2), (2, 3), (2, 4)], killing(2), small=[(0, 1)])
        )
        assert text.token_ids == expected
        assert [(f.layers, f.standby) for f in text.stats.failovers] == [((3, 4), True)]


async def test_one_that_stands_by_elsewhere_is_taken_if_it_is_the_only_one(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares, "SEEK_S", 0.2)

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        (spare,) = stream.standby
        place = next(
            place for place, stop in enumerate(stream.route) if stop.layers != spare.layers
        )
        await killing(place)(swarm, stream)

    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(write_joined_by(swarm, [(0, 4)], strike))
        assert text.token_ids == expected
        assert [failover.standby for failover in text.stats.failovers] == [False]
