"""Who has failed, and how a gap is filled, against scripted peers behind real links."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from itertools import count, repeat
from typing import Any

import pytest

from helpers.loopback import eventually, soon
from helpers.scripted_peers import (
    WINDOW,
    Chain,
    Script,
    chain_of,
    give_up_sending,
    good,
    kinds,
    mute_frames,
)
from swarm.audit.ledger import Ledger
from swarm.chain import failover, standstill
from swarm.chain.failover import Repairer
from swarm.chain.protocol import ChainProtocol
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.standby import Standby
from swarm.chain.trust import Trust
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainSilent
from swarm.network.links.link import Link
from swarm.routing.chain import Stage
from swarm.routing.health import Health
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    AcceptFrom,
    Accepting,
    Fault,
    Probe,
    Progress,
    Reroute,
    Rerouted,
    WireMessage,
)

Send = Callable[[WireMessage], Awaitable[int]]

HELD = ResumePoint(epoch=1, root=2, last=5, tokens=(3, 4))


class Finder:
    """Finds the peers that it is given, and notes what it is told of others."""

    def __init__(self, *links: ChainLink) -> None:
        self.links = list(links)
        self.blamed: list[str] = []
        self.dtypes: list[str | None] = []  # that were asked for

    async def span(
        self, first: int, last: int, avoid: Collection[str], dtype: str | None
    ) -> list[ChainLink]:
        self.dtypes.append(dtype)
        return [self.links.pop(0)]

    async def spare(
        self, first: int, last: int, avoid: Collection[str], dtype: str
    ) -> ChainLink | None:
        return None

    def failed(self, peer_id: str) -> None:
        self.blamed.append(peer_id)

    @property
    def trust(self) -> Trust:
        connections: Any = None
        return Trust(Ledger(), Health(time.monotonic, time.time), connections)


def repairer(session: ChainSession, finder: Finder) -> Repairer:
    return Repairer(session, finder, Standby(session, finder, False), patience_s=20.0)


async def working(link: Link, message: WireMessage) -> None:
    """A peer that does all it is asked for, but writes no text."""
    if isinstance(message, Probe):
        await link.send(Progress(session=message.session, epoch=0, last=3, passed=3))
    elif isinstance(message, AcceptFrom):
        await link.send(Accepting(session=message.session, speakers=message.speakers))
    elif isinstance(message, Reroute):
        await link.send(Rerouted(session=message.session, epoch=message.epoch))
    else:
        await mute_frames(link, message)


def complaining(of: list[str | None]) -> Script:
    """Of hidden states that came before, as soon as it is to take frames from another peer."""

    async def script(link: Link, message: WireMessage) -> None:
        if isinstance(message, AcceptFrom):
            fault = Fault(
                code=FaultCode.NOT_FINITE, text="no numbers", session=message.session, peer=of[0]
            )
            await link.send(fault)
        await working(link, message)

    return script


def place_of(chain: Chain, stage: int, at: int) -> ChainLink:
    """One of the peers, serving the layers of another one."""
    link = chain.links[stage]
    return ChainLink(Stage(link.peer_id, at, at + 1), link.record, link.connection)


@pytest.mark.parametrize("named", [False, True])
async def test_a_fault_from_behind_the_gap_is_about_the_peer_that_has_left(named: bool) -> None:
    of: list[str | None] = [None]
    async with (
        chain_of(working, working, complaining(of), working) as chain,
        chain.session(0, 1, 2) as session,
    ):
        of[0] = chain.peer(1) if named else None
        finder = Finder(place_of(chain, 3, 1))
        repair = await soon(repairer(session, finder).repair({chain.peer(1)}, lambda: HELD))
        assert repair.peers == (chain.peer(1),)
        assert [link.peer_id for link in session.chain] == [
            chain.peer(0),
            chain.peer(3),
            chain.peer(2),
        ]
        assert finder.blamed == []


@pytest.mark.parametrize(
    ("dtypes", "asked"), [("bfloat16 bfloat16", "bfloat16"), ("bfloat16 float32", None)]
)
async def test_peers_are_replaced_by_others_of_their_dtype(dtypes: str, asked: str | None) -> None:
    async with chain_of(working, working, working, working) as chain:
        for place, dtype in enumerate(dtypes.split(), 1):
            link = chain.links[place]
            record = link.record.model_copy(update={"dtype": dtype})
            chain.links[place] = replace(link, record=record)
        async with chain.session(0, 1, 2) as session:
            finder = Finder(place_of(chain, 3, 1))
            failed = {chain.peer(1), chain.peer(2)}
            await soon(repairer(session, finder).repair(failed, lambda: HELD))
            assert finder.dtypes == [asked]


async def test_probes_go_out_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits on its full link until all others have been asked: one after the other, that would
    never be."""
    asked: set[str] = set()
    all_asked = asyncio.Event()
    monkeypatch.setattr(failover, "PROBE_TIMEOUT_S", 20.0)
    monkeypatch.setattr(failover, "LEAST_STANDSTILL_S", 0.0)
    async with chain_of(working, working, working) as chain, chain.session() as session:
        await session.send(WINDOW)
        for link in chain.links:

            async def full(
                message: WireMessage, name: str = link.peer_id, send: Send = link.connection.send
            ) -> int:
                asked.add(name)
                if len(asked) == 3:
                    all_asked.set()
                await all_asked.wait()
                return await send(message)

            monkeypatch.setattr(link.connection, "send", full)
        monkeypatch.setattr(ChainProtocol, "patience_s", 0.0)
        assert await soon(repairer(session, Finder()).find_failed(ChainSilent(1.0))) == set()


async def test_a_link_that_takes_no_probe_holds_nobody_up_and_is_to_blame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover, "PROBE_TIMEOUT_S", 1.0)
    async with chain_of(working, working, working) as chain, chain.session() as session:
        await session.send(WINDOW)
        monkeypatch.setattr(chain.links[0].connection, "send", lambda _: asyncio.Event().wait())
        finder = Finder()
        assert await soon(repairer(session, finder).find_failed(ChainSilent(1.0))) == {
            chain.peer(0)
        }
        assert finder.blamed == [chain.peer(0)]
        assert all("Probe" in kinds(heard) for heard in chain.heard[1:])


async def test_what_was_booked_for_the_old_chain_is_not_sent_to_the_new_one() -> None:
    async with chain_of(working, good, working) as chain, chain.session(0, 1) as session:
        await give_up_sending(session, WINDOW)
        await soon(
            repairer(session, Finder(place_of(chain, 2, 1))).repair({chain.peer(1)}, lambda: HELD)
        )
        await soon(session.send(WINDOW))
        await eventually(lambda: "Frame" in kinds(chain.heard[0]))
        assert kinds(chain.heard[0]) == ["Open", "Reroute", "Frame"]


def coming_to(*standings: tuple[int, int], batches: Iterator[int] | None = None) -> Script:
    """A peer that says so of how far it has come: begun, and passed on. The last one stays.

    Args:
        batches: of any session, that it has computed at each look; without, ours is not queued.
    """
    left = list(standings)

    async def script(link: Link, message: WireMessage) -> None:
        if isinstance(message, Probe):
            begun, passed = left.pop(0) if len(left) > 1 else left[0]
            busy = {} if batches is None else {"queued": True, "batches": next(batches)}
            told = Progress(session=message.session, epoch=0, last=begun, passed=passed, **busy)
            await link.send(told)
        else:
            await working(link, message)

    return script


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "PROBE_TIMEOUT_S", 20.0)
    monkeypatch.setattr(failover, "LEAST_STANDSTILL_S", 0.0)
    monkeypatch.setattr(ChainProtocol, "patience_s", 0.0)


async def test_a_peer_that_reads_a_long_text_again_is_not_to_blame(impatient: None) -> None:
    reading = [(0, 0), (256, 0), (256, 0), (256, 0), (256, 0), (259, 259)]
    async with chain_of(coming_to(*reading), good) as chain, chain.session(1) as session:
        finder = Finder(place_of(chain, 0, 0))
        repairing = repairer(session, finder)
        await soon(repairing.repair({chain.peer(1)}, lambda: HELD))
        await session.send(replace(WINDOW, epoch=HELD.epoch, root=HELD.root, first=257))
        assert await soon(repairing.find_failed(ChainSilent(1.0))) == set()
        assert finder.blamed == []


async def test_a_peer_that_begins_late_is_not_to_blame(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "STANDSTILL_S", 20.0)
    late = coming_to((0, 0), (0, 0), (3, 0), (3, 3))
    async with chain_of(late, working) as chain, chain.session() as session:
        await session.send(WINDOW)
        finder = Finder()
        assert await soon(repairer(session, finder).find_failed(ChainSilent(1.0))) == set()
        assert finder.blamed == []


@pytest.mark.parametrize("begun", [0, 3])
async def test_a_peer_that_stands_still_is_to_blame(
    begun: int, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "STANDSTILL_S", 0.0)
    async with chain_of(working, coming_to((begun, 0))) as chain, chain.session() as session:
        await session.send(WINDOW)
        finder = Finder()
        assert await soon(repairer(session, finder).find_failed(ChainSilent(1.0))) == {
            chain.peer(1)
        }
        assert finder.blamed == [chain.peer(1)]


async def test_a_busy_peer_that_works_for_others_is_not_to_blame(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other sessions' prompts take far longer than one that is idle may stand still."""
    monkeypatch.setattr(standstill, "STANDSTILL_S", 0.0)
    busy = coming_to(*[(0, 0)] * 8, (3, 3), batches=count())
    async with chain_of(busy, working) as chain, chain.session() as session:
        await session.send(WINDOW)
        finder = Finder()
        assert await soon(repairer(session, finder).find_failed(ChainSilent(1.0))) == set()
        assert finder.blamed == []


@pytest.mark.parametrize(
    ("patience", "batches"),
    [
        ("BATCH_S", repeat(7)),  # its compute thread hangs
        ("PROMPT_TIMEOUT_S", count()),  # it only says that it is busy
    ],
)
async def test_a_busy_peer_is_not_waited_for_for_ever(
    patience: str, batches: Iterator[int], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, patience, 0.0)
    hangs = coming_to((3, 0), batches=batches)
    async with chain_of(hangs, working) as chain, chain.session() as session:
        await session.send(WINDOW)
        assert await soon(repairer(session, Finder()).find_failed(ChainSilent(1.0))) == {
            chain.peer(0)
        }


async def test_that_a_peer_works_for_others_excuses_no_peer_behind_it(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "STANDSTILL_S", 0.0)
    busy = coming_to((3, 3), batches=count())
    async with chain_of(busy, coming_to((0, 0))) as chain, chain.session() as session:
        await session.send(WINDOW)
        assert await soon(repairer(session, Finder()).find_failed(ChainSilent(1.0))) == {
            chain.peer(1)
        }
