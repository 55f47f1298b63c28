"""A peer serves layers, moves to others or stays if that cannot be, and leaves."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch

from helpers.loopback import eventually, new_member, opening, session_id, soon
from peers import lifecycle as module
from peers.compute.loader import Loader
from peers.compute.memory import DeviceMemory, DoesNotFit, MemoryBudget
from peers.compute.scheduler import Scheduler
from peers.events import PeerEvent
from peers.lifecycle import Lifecycle
from peers.offer import Offer
from peers.sessions.handler import Handler
from swarm.errors import DirectoryDown
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end

HERE, THERE = (0, 2), (2, 4)


def too_large() -> DoesNotFit:
    return DoesNotFit(THERE, "tiny", "cpu", 2, 1, 2)


class BlockSelection:
    """Wants to go there, again and again, until it is there."""

    def __init__(self, life: Lifecycle) -> None:
        self._lifecycle = life

    async def choose(self) -> tuple[int, int]:
        return HERE

    async def reconsider(self, first: int, last: int, _: float) -> tuple[int, int] | None:
        if (first, last) == THERE:
            return None
        await self._lifecycle.claim(THERE)
        return THERE

    def pause_s(self) -> float:
        return 0.01


class Failing(Loader):
    """Cannot load some layers so many times: ``failures`` are what it raises."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.failures: list[Exception] = []

    async def load(self, first: int, last: int) -> Span:
        if (first, last) == THERE and self.failures:
            raise self.failures.pop(0)
        return await super().load(first, last)


class Silent:
    """A client that has left."""

    peer_id, address, relayed = "alice", "192.0.2.1", False

    async def send(self, _: object) -> None:
        raise LinkClosed(self.address, "it left")


@dataclass
class Peer:
    life: Lifecycle
    handler: Handler
    loader: Failing
    said: list[PeerEvent] = field(default_factory=list)
    published: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    served: list[Span] = field(default_factory=list)
    directory_down: bool = False

    def heard(self, event: str) -> list[PeerEvent]:
        return [news for news in self.said if news.event == event]


@asynccontextmanager
async def idle(tiny: Checkpoint) -> AsyncIterator[Peer]:
    """A peer that serves nothing yet."""
    room = MemoryBudget.measure(tiny, torch.float32, DeviceMemory(torch.device("cpu")), 100)
    loader, dialer = Failing(tiny, torch.float32, room, 1, None), Dialer(new_member())
    handler, offer = Handler(tiny.fingerprint, dialer), Offer((0, 1))

    async def publish() -> None:
        if peer.directory_down:
            raise DirectoryDown("no node answers")
        peer.published.append((offer.layers, offer.state))

    life = Lifecycle(
        offer,
        handler,
        loader,
        room,
        publish,
        0.0,
        lambda news: peer.said.append(news),
        lambda span: peer.served.append(span),
    )
    peer = Peer(life, handler, loader)
    try:
        yield peer
    finally:
        await life.close()
        await handler.close()
        await dialer.close()


@asynccontextmanager
async def living(tiny: Checkpoint, *failures: Exception) -> AsyncIterator[Peer]:
    """A peer that serves what it has chosen, and wants to move."""
    async with idle(tiny) as peer:
        peer.loader.failures += failures
        selection: Any = BlockSelection(peer.life)
        living = asyncio.create_task(peer.life.run_free(selection, 2))
        try:
            await eventually(lambda: bool(peer.served) or living.done())
            yield peer
            assert not living.done(), "it goes on"
        finally:
            await end(living)


@asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator["asyncio.Task[None]"]:
    """Until the end, `HERE` is served."""
    life = asyncio.create_task(peer.life.run(HERE))
    try:
        await eventually(lambda: bool(peer.served) or life.done())
        yield life
    finally:
        await end(life)


async def test_layers_are_claimed_before_they_are_served(tiny: Checkpoint) -> None:
    async with idle(tiny) as peer, serving(peer):
        assert peer.published == [(HERE, "joining"), (HERE, "online")]
        assert peer.life.known.is_set()
        assert peer.life.offer.tokens_per_second > 0
        assert peer.life.offer.budget.total_tokens == 100


async def test_a_peer_that_nobody_can_hear_of_does_not_begin(tiny: Checkpoint) -> None:
    async with idle(tiny) as peer:
        peer.directory_down = True
        with pytest.raises(DirectoryDown):
            await soon(peer.life.claim(HERE))
        assert not peer.life.known.is_set()


async def test_a_change_that_cannot_be_published_now_stays_offered(tiny: Checkpoint) -> None:
    async with idle(tiny) as peer:
        await peer.life.claim(HERE)
        peer.directory_down = True
        async with serving(peer):
            assert (peer.published, peer.life.offer.state) == ([(HERE, "joining")], "online")


@pytest.mark.parametrize("sessions", [0, 1])
async def test_a_peer_that_leaves_says_so_while_sessions_run(
    tiny: Checkpoint, sessions: int
) -> None:
    """Without any, its record is withdrawn at once, and one more in between would say nothing."""
    async with idle(tiny) as peer:
        async with serving(peer):
            for number in range(sessions):
                asked = opening(tiny.fingerprint, *HERE, session=session_id(number))
                await peer.handler.sessions.open(cast(Link, Silent()), asked)
        await soon(peer.life.leave())
        assert (peer.published[-1] == (HERE, "draining")) == bool(sessions)
        assert peer.life.offer.state == "draining"
        assert (len(peer.handler.sessions), peer.handler.sessions.draining) == (0, True)


async def test_what_the_compute_thread_dies_of_ends_the_life(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Scheduler, "run", die)
    async with idle(tiny) as peer:
        with pytest.raises(ZeroDivisionError):
            await soon(peer.life.run(HERE))


@pytest.mark.parametrize("failure", [too_large(), OSError("the disk is gone"), RuntimeError()])
@pytest.mark.parametrize("room_for_both", [True, False])
async def test_a_peer_that_cannot_load_its_new_layers_stays_with_its_old_ones(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch, room_for_both: bool, failure: Exception
) -> None:
    monkeypatch.setattr(MemoryBudget, "takes_also", lambda *_: room_for_both)
    async with living(tiny, failure) as peer:
        first = peer.served[0]
        await soon(eventually(lambda: (peer.served[-1].first, peer.served[-1].last) == THERE))
        (staying,) = peer.heard("staying")
        assert (staying.facts["layers"], staying.facts["to_layers"]) == (HERE, THERE)
        assert staying.sentence.startswith("staying with layers 0:2: 2:4 could not be served (")
        claimed = peer.published.index((THERE, "joining"))
        moved = peer.published.index((THERE, "online"))
        assert (HERE, "online") in peer.published[claimed:moved], "it offers its old layers again"
        assert len(peer.heard("moving")) == 2
        spans = [(span.first, span.last) for span in peer.served]
        assert spans == [HERE, THERE] if room_for_both else [HERE, HERE, THERE]
        assert peer.served[0] is first


async def test_sessions_go_on_where_the_old_layers_were_never_given_up(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_DOUBLINGS", 20)
    monkeypatch.setattr(MemoryBudget, "takes_also", lambda *_: True)
    async with living(tiny, *[OSError("no")] * 3, *[OSError("never")] * 100) as peer:
        scheduler = peer.handler.sessions._served
        await soon(eventually(lambda: len(peer.heard("staying")) == 3))
        assert peer.handler.sessions._served is scheduler
        assert not peer.handler.sessions.draining


async def test_what_was_loaded_in_vain_is_given_back(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the new layers were there, and only measuring them failed."""
    monkeypatch.setattr(MemoryBudget, "takes_also", lambda *_: True)

    def spans() -> int:
        gc.collect()
        return sum(type(each) is Span for each in gc.get_objects())

    before = spans()
    async with living(tiny) as peer:
        measure, failed = peer.loader.measure, []

        async def fails_once(span: Span) -> float:
            if not failed:
                failed.append(span.first)
                raise too_large()  # nothing else keeps it, and what it refers to
            return await measure(span)

        monkeypatch.setattr(peer.loader, "measure", fails_once)
        await soon(eventually(lambda: (peer.served[-1].first, peer.served[-1].last) == THERE))
        assert [(span.first, span.last) for span in peer.served] == [HERE, HERE, THERE]
        peer.served.clear()
        assert spans() == before + 1
