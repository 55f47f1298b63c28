"""Clocks that are off: which node is wrong, what it is told, and that it goes on once it is
right."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import pytest
from hivemind.dht import protocol
from hivemind.utils import timed_storage

from helpers.dht import LAYERS, MODEL, Lab, laboratory, record_of
from swarm.errors import ClockOff
from swarm.identity import Identity
from swarm.network.dht import daemon, node
from swarm.network.dht.clock_skew import ClockSkew
from swarm.network.dht.directory import Directory
from swarm.network.dht.rpc_gater import RpcGater
from swarm.network.dht.storage import BoundedStorage
from swarm.network.dht.validator import RecordValidator

JUMPS_S = [600.0, -600.0, 3600.0, -3600.0]
NAMES = {True: "ahead of", False: "behind"}


def test_without_an_answer_the_clock_is_taken_to_be_right() -> None:
    assert ClockSkew().ahead_s == 0.0
    ClockSkew().check(0.0)


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_step_shows_at_once_and_the_median_decides(jump_s: float) -> None:
    now, steady = [1000.0], [5.0]
    clock = ClockSkew(lambda: now[0], lambda: steady[0])
    for told_by, skew in {"a": 0.0, "b": 0.5, "liar": 1e9, "c": -0.5, "d": 0.0}.items():
        clock.told(told_by, now[0] + skew, asked_at=steady[0])
    clock.check(1.0)
    now[0] += jump_s
    with pytest.raises(
        ClockOff, match=f"{abs(jump_s):.0f} s {NAMES[jump_s > 0]} those of 5 nodes"
    ) as off:
        clock.check(1.0)
    assert off.value.ahead_s == pytest.approx(jump_s)
    now[0] -= jump_s
    clock.check(1.0)


def test_what_was_told_before_a_sleep_is_forgotten_once_somebody_tells_anew() -> None:
    now, steady = [1000.0], [5.0]
    clock = ClockSkew(lambda: now[0], lambda: steady[0])
    clock.told("a", now[0], asked_at=steady[0])
    now[0] += 3600.0  # the computer slept: its steady clock stood still
    steady[0] += 1.0
    clock.forget_before(steady[0])
    assert clock.ahead_s > 3000.0
    clock.told("b", now[0], asked_at=steady[0])
    clock.forget_before(steady[0])
    assert (clock.nodes, clock.ahead_s) == (1, 0.0)


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), 0.0])
def test_nonsense_is_not_a_time(nonsense: float) -> None:
    clock = ClockSkew()
    clock.told("a", nonsense, asked_at=0.0)
    assert clock.nodes == 0


EVERYWHERE_S = [0.0]  # by how much all clocks are ahead of the one that tests run by
AHEAD_S: ContextVar[list[float]] = ContextVar("AHEAD_S")  # of the node whose task this is


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every node live in the time of the task that started it."""
    right = time.time

    def time_here() -> float:
        return right() + AHEAD_S.get(EVERYWHERE_S)[0]

    monkeypatch.setattr(time, "time", time_here)
    monkeypatch.setattr(protocol, "get_dht_time", time_here)
    monkeypatch.setattr(timed_storage, "get_dht_time", time_here)
    monkeypatch.setattr(daemon, "RpcGater", partial(RpcGater, time_of_day=time_here))
    monkeypatch.setattr(node, "RecordValidator", partial(RecordValidator, clock=time_here))
    monkeypatch.setattr(node, "BoundedStorage", partial(BoundedStorage, clock=time_here))
    EVERYWHERE_S[0] = 0.0


class InItsTime:
    """Runs what a node does in that node's time."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = [ahead_s]
        self._context = copy_context()
        self._context.run(AHEAD_S.set, self.ahead_s)

    async def run(self, work: Awaitable[Any]) -> Any:
        async def done() -> Any:
            return await work

        return await self._context.run(asyncio.create_task, done())


@pytest.fixture
async def lab(clocks: None) -> AsyncIterator[Lab]:
    async with laboratory() as lab:
        await lab.peer(first=4, last=LAYERS)
        yield lab


async def test_a_node_with_a_wrong_clock_is_told_at_its_start(lab: Lab) -> None:
    for ahead_s in JUMPS_S:
        here = InItsTime(ahead_s)
        with pytest.raises(ClockOff, match=f"{NAMES[ahead_s > 0]} that of the only node asked"):
            await here.run(Directory.join(Identity.generate(), lab.network))
    here.ahead_s[0] = 0.0
    async with await here.run(Directory.join(Identity.generate(), lab.network)) as directory:
        assert len(await here.run(directory.peers(MODEL, LAYERS))) == 1


async def test_a_node_whose_clock_jumps_says_so_once_and_goes_on_once_it_is_right(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    identity, here = Identity.generate(), InItsTime(0.0)
    directory = await lab.stack.enter_async_context(
        await here.run(Directory.join(identity, lab.network))
    )
    await here.run(directory.publish(record_of(identity)))
    for jump_s in JUMPS_S:
        caplog.clear()
        here.ahead_s[0] = jump_s
        for work in (directory.publish(record_of(identity)), directory.peers(MODEL, LAYERS)):
            with pytest.raises(
                ClockOff, match=f"{abs(jump_s):.0f} s {NAMES[jump_s > 0]} those of 2 nodes"
            ):
                await here.run(work)
        assert len([line for line in caplog.messages if "This computer's clock is" in line]) == 1
        here.ahead_s[0] = 0.0
        await here.run(directory.publish(record_of(identity, tokens_per_second=abs(jump_s))))
        assert len(await here.run(directory.peers(MODEL, LAYERS))) == 2
        assert "agrees with the other nodes' again" in caplog.text
        found = {record.peer_id: record for record in await lab.bootstrap.peers(MODEL, LAYERS)}
        assert found[identity.peer_id].tokens_per_second == abs(jump_s)


async def test_a_clock_that_all_nodes_share_may_be_set_forth_and_back(lab: Lab) -> None:
    """As where a whole swarm runs on one computer."""
    identity = Identity.generate()
    directory = await lab.join(identity)
    for ahead_s in (0.0, 600.0, 3600.0, 0.0):
        EVERYWHERE_S[0] = ahead_s
        await directory.publish(record_of(identity, tokens_per_second=1.0 + ahead_s))
        for reader in (lab.bootstrap, directory):
            found = {record.peer_id: record for record in await reader.peers(MODEL, LAYERS)}
            assert found[identity.peer_id].tokens_per_second == 1.0 + ahead_s
