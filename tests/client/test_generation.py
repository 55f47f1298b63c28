"""Generations over real peers on loopback that fail in every way: the text is the same as if none
had."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any

import pytest
from torch import Tensor

from helpers.loopback import Peer, eventually, soon
from helpers.strikes import WAY_NAMES, WAYS, hanging, killing
from helpers.swarm_in_process import LITTLE_AHEAD, NEW, PROMPT, STAGES, Strike, Swarm, swarm_of
from peers.compute.scheduler import Computed, Scheduler
from peers.sessions import downstream
from peers.sessions.limits import LONGEST_LIFE_S
from swarm.chain import failover, in_flight, standstill
from swarm.chain.answer import ChainAnswer
from swarm.chain.events import Event
from swarm.chain.failover import Repair
from swarm.chain.protocol import ChainProtocol
from swarm.chain.stage import ChainLink
from swarm.client import generation as generations
from swarm.client.generation import GenerationStream
from swarm.client.judging import ROWS_AT_ONCE, Judged, judge
from swarm.client.repairs import Repairs
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainSilent, MissingLayers, SwarmIncomplete
from swarm.model.head import Head
from swarm.wire.messages import Frame
from swarm.wire.tensors import WireTensor


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize("stages", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
async def test_whoever_is_killed_the_text_is_the_same(
    stages: tuple[int, ...],
    way: dict[str, int],
    make: Callable[[], Swarm],
    expected: tuple[int, ...],
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(killing(*stages), **way))
        assert text.token_ids == expected
        gone = [peer_id for failover in text.stats.failovers for peer_id in failover.peers]
        assert len(gone) == len(set(gone)) == len(stages)
        assert not any(map(swarm.health.usable, gone))
        assert all(f.pause_ms >= f.repair_ms > 0 for f in text.stats.failovers)


@pytest.mark.parametrize("stages", [(0,), (1,), (2,), (0, 1, 2)])
async def test_whoever_takes_a_place_is_credited_with_its_own_times(
    stages: tuple[int, ...],
    make: Callable[[], Swarm],
    expected: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every peer says that a forward takes it a time of its own, whatever it computes."""
    compute = Scheduler._compute

    def told(self: Scheduler, batch: list[Any]) -> list[Any]:
        place = next(place for place, peer in enumerate(peers) if peer.span is self.span)
        return [replace(each, compute_ms=10.0 * (place + 1)) for each in compute(self, batch)]

    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        peers = list(swarm.up)
        took_ms = {peer.id: 10.0 * (place + 1) for place, peer in enumerate(peers)}
        monkeypatch.setattr(Scheduler, "_compute", told)
        text = await soon(swarm.write(killing(*stages)))
        assert text.token_ids == expected
        assert text.stats.stage_compute_ms == tuple(
            pytest.approx(took_ms[stop.peer_id]) for stop in text.route
        )
        for peer in peers:
            layers = peer.span.last - peer.span.first
            assert swarm.health.layer_ms(peer.id) in (
                None,
                pytest.approx(took_ms[peer.id] / layers),
            )
        assert all(swarm.health.layer_ms(stop.peer_id) for stop in text.route)


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
async def test_the_text_tells_what_it_waited_for(
    way: dict[str, int], make: Callable[[], Swarm]
) -> None:
    """The parts add up, also over a failure."""
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        for strike in (None, killing(1)):
            stats = (await soon(swarm.write(strike, **way))).stats
            assert stats.share is not None
            parts = astuple(stats.share)
            assert sum(parts) == pytest.approx(1)
            assert min(parts) >= -1e-9
            assert min(stats.share.links, stats.share.stages, stats.share.judging) > 0
            assert stats.drafted_tokens or stats.share.drafting == 0
            assert stats.judge_ms is not None
            assert stats.judge_ms > 0


async def test_what_a_reader_takes_counts_neither_as_a_pause_nor_as_patience() -> None:
    class Nobody:
        """Repairs nothing: what was asked for is there already."""

        def answered(self) -> None:
            """Nothing stands still here."""

        async def find_failed(self, why: object) -> set[str]:
            return {"one"}

        async def repair(self, broken: set[str], resume: object) -> Repair:
            now[0] += 2.0
            return Repair(("one",), (0, 4), 500.0, 7, False)

    now = [100.0]
    repairs = Repairs(Nobody(), lambda: now[0])  # type: ignore[arg-type]
    repairs.answered(101.0)
    now[0] = 101.5
    await repairs.repair(ChainSilent(1.0), lambda: ResumePoint(0, 0, 0, ()))
    now[0] = 900.0  # the answer came long ago
    repairs.answered(104.0)
    (failover,) = repairs.failovers
    assert (failover.noticed_ms, failover.waited_ms, failover.repair_ms) == (500.0, 500.0, 1500.0)
    assert failover.pause_ms == 3000.0


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


async def test_several_peers_take_the_place_of_one(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, (0, 1), (1, 3), (3, 4), (1, 2), (2, 3)) as swarm:
        text = await soon(swarm.write(killing(1)))
        assert text.token_ids == expected
        assert [stop.layers for stop in text.route] == [(0, 1), (1, 2), (2, 3), (3, 4)]


async def test_a_new_first_peer_may_serve_a_part_of_its_layers(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, (0, 1), (1, 3), (3, 4)) as swarm:
        stream, said = swarm.stream(**LITTLE_AHEAD), 0
        async for _ in stream:
            said += 1
            if said == NEW // 3:
                await swarm.add((0, 4))
                await killing(0)(swarm, stream)
        assert stream.result.token_ids == expected
        assert stream.result.route[0].layers == (0, 1)


@pytest.mark.parametrize("stage", range(3))
async def test_a_peer_that_hangs_and_still_answers(
    stage: int,
    make: Callable[[], Swarm],
    expected: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "LEAST_HANG_S", 0.2)
    monkeypatch.setattr(standstill, "BATCH_S", 2.0)
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(hanging(stage)))
        assert text.token_ids == expected
        assert [f.layers for f in text.stats.failovers] == [STAGES[stage]]


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
async def test_nobody_is_replaced_because_an_answer_takes_long(
    way: dict[str, int],
    make: Callable[[], Swarm],
    expected: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With no patience at all every loop is a false alarm: all peers are asked, and the answer that
    came is taken."""
    monkeypatch.setattr(in_flight, "LEAST_HANG_S", 0.0)
    monkeypatch.setattr(in_flight, "HANG_LOOPS", 0.1)
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
        rest = await swarm.write(
            prompt=[*PROMPT, *said], max_new_tokens=left, temperature=0.7, seed=5
        )
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


def ageing(*stages: int) -> Strike:
    """Sessions that have lasted as long as a peer lets one."""

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        for stage in stages:
            for session in swarm.serving(stream, stage).handler.sessions.values():
                session.since -= LONGEST_LIFE_S

    return strike


@pytest.mark.threat("endless-session")
@pytest.mark.parametrize("copies", [1, 2], ids=["the same peers", "others are there"])
@pytest.mark.parametrize("stages", [(0,), (1,), (2,), (0, 1, 2)])
async def test_a_text_outlives_the_longest_life_of_its_sessions(
    stages: tuple[int, ...], copies: int, make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES * copies) as swarm:
        text = await soon(swarm.write(ageing(*stages)))
        assert text.token_ids == expected
        assert text.stats.failovers
        assert all(map(swarm.health.usable, (peer.id for peer in swarm.up))), "nobody is to blame"


@pytest.mark.threat("not-finite")
async def test_a_peer_that_sends_what_is_no_number_is_replaced(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one behind it says so, and keeps its session."""
    culprit: list[Peer] = []

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        peer = swarm.serving(stream, 1)
        culprit.append(peer)
        for session in peer.handler.sessions.values():
            send = session.downstream.send

            async def spoilt(frame: Frame, computed: Computed, send: Any = send) -> None:
                computed.output[-1, 0] = float("nan")
                with monkeypatch.context() as patch:
                    patch.setattr(downstream, "_packed", WireTensor.pack)
                    await send(frame, computed)

            monkeypatch.setattr(session.downstream, "send", spoilt)

    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(strike))
        assert text.token_ids == expected
        assert {peer_id for failover in text.stats.failovers for peer_id in failover.peers} == {
            culprit[0].id
        }
        assert [peer.id for peer in swarm.up if not swarm.health.usable(peer.id)] == [culprit[0].id]


async def test_answers_that_come_while_one_is_judged_are_judged_together(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    came: list[ChainAnswer] = []
    answer = ChainProtocol.answer

    def slowly(head: Head, hidden: Tensor, *rest: Any) -> Judged:
        rows.append(len(hidden))
        time.sleep(0.03)
        return judge(head, hidden, *rest)

    def noted(protocol: ChainProtocol[ChainLink], event: Event) -> ChainAnswer | None:
        if found := answer(protocol, event):
            came.append(found)
        return found

    monkeypatch.setattr(generations, "judge", slowly)
    monkeypatch.setattr(ChainProtocol, "answer", noted)
    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(swarm.write(window=1, depth=8))
    assert text.token_ids == expected
    assert len(rows) < 0.7 * len(came)
    assert max(rows) <= ROWS_AT_ONCE
