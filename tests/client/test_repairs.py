"""How long each repair of a chain took, and how long the text paused."""

from collections.abc import Callable
from typing import Any

import pytest

from helpers.clock import Clock
from swarm.chain.failover import Repair
from swarm.client.repairs import Repairs
from swarm.decoding.windows import NOTHING_HELD, ResumePoint
from swarm.errors import ChainBroken, ChainSilent, SwarmIncomplete
from swarm.outputs import Failover

SILENT = ChainSilent(3.0)
DONE = Repair(("b",), (1, 2), waited_ms=200.0, replayed_tokens=9, standby=True)


class Repairer:
    """Finds the failed peers in 1 s, and replaces them in 2 s; it notes what it is asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.broken = {"b"}
        self.calls: list[Any] = []

    def answered(self) -> None:
        self.calls.append("answered")

    async def find_failed(self, why: ChainBroken | ChainSilent) -> set[str]:
        self.calls.append(why)
        self.clock.now += 1.0
        return self.broken

    async def repair(self, broken: set[str], resume: Callable[[], ResumePoint]) -> Repair:
        self.calls.append((broken, resume()))
        self.clock.now += 2.0
        return DONE


@pytest.fixture
def repairer(clock: Clock) -> Repairer:
    return Repairer(clock)


@pytest.fixture
def repairs(repairer: Repairer, clock: Clock) -> Repairs:
    return Repairs(repairer, clock)  # type: ignore[arg-type]


def resume() -> ResumePoint:
    return NOTHING_HELD


async def test_a_repair_is_measured_from_the_last_answer(
    repairs: Repairs, repairer: Repairer, clock: Clock
) -> None:
    repairs.answered(clock.now)
    clock.now += 0.5
    await repairs.repair(SILENT, resume)
    assert repairer.calls == ["answered", SILENT, ({"b"}, NOTHING_HELD)]
    assert repairs.failovers == [
        Failover(
            peers=("b",),
            layers=(1, 2),
            noticed_ms=1500.0,  # 0.5 s of silence, and 1 s to find out who has failed
            waited_ms=200.0,
            repair_ms=1800.0,  # of 2 s, without the wait
            pause_ms=0.0,
            replayed_tokens=9,
            standby=True,
        )
    ]


async def test_the_pause_ends_with_the_next_answer(repairs: Repairs, clock: Clock) -> None:
    repairs.answered(clock.now)
    await repairs.repair(SILENT, resume)
    clock.now += 0.25
    repairs.answered(clock.now)
    assert repairs.failovers[-1].pause_ms == 3250.0
    clock.now += 7.0
    repairs.answered(clock.now)
    assert repairs.failovers[-1].pause_ms == 3250.0, "it is over"


async def test_the_answers_own_time_counts_and_not_when_it_is_read(
    repairs: Repairs, clock: Clock
) -> None:
    repairs.answered(clock.now - 1.0)
    await repairs.repair(SILENT, resume)
    assert repairs.failovers[-1].noticed_ms == 2000.0
    repairs.answered(clock.now - 0.5)
    assert repairs.failovers[-1].pause_ms == 3500.0


async def test_before_the_first_answer_the_beginning_counts(repairs: Repairs, clock: Clock) -> None:
    clock.now += 4.0
    await repairs.repair(SILENT, resume)
    assert repairs.failovers[-1].noticed_ms == 5000.0


async def test_repairs_without_an_answer_between_them_are_measured_apart(
    repairs: Repairs, clock: Clock
) -> None:
    await repairs.repair(SILENT, resume)
    await repairs.repair(ChainBroken("b", (1, 2), "it left"), resume)
    repairs.answered(clock.now)
    assert [each.noticed_ms for each in repairs.failovers] == [1000.0, 4000.0]
    assert [each.pause_ms for each in repairs.failovers] == [0.0, 6000.0], "one pause, told once"


async def test_if_none_has_failed_nothing_is_repaired(repairs: Repairs, repairer: Repairer) -> None:
    repairer.broken = set()
    await repairs.repair(SILENT, resume)
    assert (repairs.failovers, repairer.calls) == ([], [SILENT])


async def test_a_repair_that_fails_is_no_failover(
    repairs: Repairs, repairer: Repairer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> Repair:
        raise SwarmIncomplete("layers 1 to 2", 60.0)

    monkeypatch.setattr(repairer, "repair", fail)
    with pytest.raises(SwarmIncomplete):
        await repairs.repair(SILENT, resume)
    assert repairs.failovers == []
