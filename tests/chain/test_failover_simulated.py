"""Whatever peers fail, and whenever, every generation goes on over a whole chain, and no healthy
peer is blamed: in virtual time, without links, several generations at once over the same peers."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.obliging_peers import WIDTH, ObligingPeer, obliging_peers
from helpers.virtual_time import run_in_virtual_time
from swarm.audit.ledger import Ledger
from swarm.chain.failover import Repair, Repairer
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.standby import Standby
from swarm.chain.terms import Terms
from swarm.chain.trust import Trust
from swarm.decoding.windows import ResumePoint, Window
from swarm.errors import ChainBroken, ChainSilent, MissingLayers
from swarm.routing.health import Health

WINDOWS = 12  # of each generation
PACE_S = 0.3  # between two of them: a text takes some seconds, in which others may stand by
LIMIT_S = 900.0  # of virtual time, for everything


@dataclass
class Finder:
    """Finds peers by lot, dead ones included: a directory learns late."""

    peers: list[ObligingPeer]
    random: Random
    blamed: set[str] = field(default_factory=set)

    async def span(
        self, first: int, last: int, avoid: Collection[str], dtype: str | None
    ) -> list[ChainLink]:
        found = [p for p in self.peers if p.name not in avoid and p.name not in self.blamed]
        if not found:
            raise MissingLayers("tiny", [(first, last)], 4, len(self.peers))
        return [self.random.choice(found).link(first, last)]

    async def spare(
        self, first: int, last: int, avoid: Collection[str], dtype: str
    ) -> ChainLink | None:
        try:
            return (await self.span(first, last, avoid, dtype))[0]
        except MissingLayers:
            return None

    def failed(self, peer_id: str) -> None:
        self.blamed.add(peer_id)

    @property
    def trust(self) -> Trust:
        connections: Any = None
        clock = asyncio.get_running_loop().time
        return Trust(Ledger(), Health(clock, clock), connections)


class Generation:
    """Sends window after window, each when the one before was answered."""

    def __init__(self, chain: list[ChainLink], finder: Finder, standby: bool) -> None:
        terms = Terms("0" * 32, 256, WIDTH)
        self.session = ChainSession(chain, terms, asyncio.get_running_loop().time)
        self.standby = Standby(self.session, finder, standby)
        self.repairer = Repairer(self.session, finder, self.standby, patience_s=300.0)
        self.stages = len(chain)
        self.epoch = 0
        self.serial = 0
        self.root = 0
        self.answered: list[Window] = []
        self.repairs: list[Repair] = []

    async def run(self, peers: dict[str, ObligingPeer]) -> None:
        await self.session.open()
        try:
            while len(self.answered) < WINDOWS:
                try:
                    await self.loop()
                except (ChainBroken, ChainSilent) as failure:
                    broken = await self.repairer.find_failed(failure)
                    assert all(peers[name].failed for name in broken), "a healthy one is blamed"
                    if broken:
                        self.repairs.append(await self.repairer.repair(broken, self.resume))
                        self.check_chain()
        finally:
            await self.standby.close()
            await self.session.close()

    async def loop(self) -> None:
        first = self.serial + 1
        self.serial += 2
        parents = None if first == self.root + 1 else (first - self.root, 1)
        window = Window(self.epoch, self.root, first, (3, 3), parents, 2, first - 1)
        self.standby.sent(window)
        await self.session.send(window)
        answer = await self.session.receive()
        assert answer.windows == (window,)
        assert answer.hidden.tolist() == [[float(first)] * WIDTH] * 2
        self.answered.append(window)
        self.root = answer.last
        self.standby.answered(answer)
        self.repairer.answered()
        await asyncio.sleep(PACE_S)

    def resume(self) -> ResumePoint:
        self.epoch += 1
        return ResumePoint(self.epoch, self.root, self.serial, (3,) * 2 * len(self.answered))

    def check_chain(self) -> None:
        stages = [link.stage for link in self.session.chain]
        assert stages[0].first == 0
        assert stages[-1].last == self.stages
        assert all(one.last == two.first for one, two in pairwise(stages))


@st.composite
def stories(draw: st.DrawFn) -> dict[str, Any]:
    stages, generations = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    strikes = draw(
        st.lists(
            st.tuples(
                st.integers(0, 5),  # which peer
                st.floats(0.0, 8.0),  # when
                st.sampled_from(["dies", "hangs"]),
            ),
            max_size=4,
        )
    )
    return {
        "stages": stages,
        "generations": generations,
        "strikes": strikes,
        "standby": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
    }


async def play(story: dict[str, Any]) -> list[Generation]:
    stages = story["stages"]
    # the first six may fail; two chains of others never do
    peers = list(obliging_peers(6 + 2 * stages + 2))
    by_name = {peer.name: peer for peer in peers}
    finder = Finder(peers, Random(story["seed"]))
    loop = asyncio.get_running_loop()
    for which, at, kind in story["strikes"]:
        peer = peers[which]
        strike = peer.die if kind == "dies" else lambda peer=peer: setattr(peer, "hangs", True)
        loop.call_later(1.0 + at, strike)
    chains = [
        [peers[(number + place) % 6].link(place, place + 1) for place in range(stages)]
        for number in range(story["generations"])
    ]
    generations = [Generation(chain, finder, story["standby"]) for chain in chains]
    await asyncio.gather(*(each.run(by_name) for each in generations))
    for each in generations:
        assert len(each.answered) == WINDOWS
        firsts = [window.first for window in each.answered]
        assert firsts == sorted(set(firsts)), "a window was answered twice"
    assert all(by_name[name].failed for name in finder.blamed), "a healthy peer was blamed"
    await asyncio.sleep(5.0)
    assert not any(peer.served for peer in peers), "a session is left over"
    assert loop.time() < LIMIT_S
    return generations


@settings(max_examples=100, deadline=None)
@given(stories())
def test_whatever_fails_every_text_goes_on_and_no_healthy_peer_is_blamed(
    story: dict[str, Any],
) -> None:
    run_in_virtual_time(play(story))


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("kind", ["dies", "hangs"])
def test_a_peer_that_stood_by_takes_the_place_without_a_replay(place: int, kind: str) -> None:
    story = {
        "stages": 3,
        "generations": 1,
        "strikes": [(place, 1.5, kind)],
        "standby": True,
        "seed": 3,
    }
    (generation,) = run_in_virtual_time(play(story))
    assert [(repair.standby, repair.replayed_tokens) for repair in generation.repairs] == [
        (True, 0)
    ]


def test_without_one_that_stands_by_the_text_is_replayed() -> None:
    story = {"stages": 2, "generations": 2, "strikes": [(1, 1.5, "dies")]}
    generations = run_in_virtual_time(play(story | {"standby": False, "seed": 3}))
    for generation in generations:
        (repair,) = generation.repairs
        assert not repair.standby
        assert repair.replayed_tokens > 0
