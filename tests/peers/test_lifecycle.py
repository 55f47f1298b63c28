"""A peer moves to other layers, or stays where it is if that cannot be."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from helpers.loopback import eventually, somebody, soon
from peers import lifecycle as module
from peers.compute.loader import Loader
from peers.compute.memory import DoesNotFit, Memory, Room
from peers.events import News
from peers.lifecycle import Life, Offer
from peers.sessions.handler import Handler
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.dialer import Dialer
from swarm.util.tasks import end

HERE, THERE = (0, 2), (2, 4)


def too_large() -> DoesNotFit:
    return DoesNotFit(THERE, "tiny", "cpu", 2, 1, 2)


class Placing:
    """Wants to go there, again and again, until it is there."""

    def __init__(self, *arguments: Any) -> None:
        self._claim, self.looks = arguments[4], 0

    async def choose(self) -> tuple[int, int]:
        return HERE

    async def reconsider(self, first: int, last: int, _: float) -> tuple[int, int] | None:
        if (first, last) == THERE:
            return None
        await self._claim(THERE)
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


@dataclass
class Peer:
    life: Life
    handler: Handler
    loader: Failing
    said: list[News] = field(default_factory=list)
    published: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    served: list[Span] = field(default_factory=list)

    def heard(self, event: str) -> list[News]:
        return [news for news in self.said if news.event == event]


@asynccontextmanager
async def living(tiny: Checkpoint, *failures: Exception) -> AsyncIterator[Peer]:
    room = Room.measure(tiny, torch.float32, Memory(torch.device("cpu")), 100)
    loader, dialer = Failing(tiny, torch.float32, room, 1, None), Dialer(somebody())
    loader.failures += failures
    handler, offer = Handler(tiny.fingerprint, dialer), Offer((0, 1))

    async def publish() -> None:
        peer.published.append((offer.layers, offer.state))

    life = Life(
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
    living = asyncio.create_task(life.run_free("us", None, 2, random.Random(1)))  # type: ignore[arg-type]
    try:
        await eventually(lambda: bool(peer.served) or living.done())
        yield peer
        assert not living.done(), "it goes on"
    finally:
        await end(living)
        await life.close()
        await handler.close()
        await dialer.close()


@pytest.fixture(autouse=True)
def _placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Placing", Placing)


@pytest.mark.parametrize("failure", [too_large(), OSError("the disk is gone"), RuntimeError()])
@pytest.mark.parametrize("room_for_both", [True, False])
async def test_a_peer_that_cannot_load_its_new_layers_stays_with_its_old_ones(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch, room_for_both: bool, failure: Exception
) -> None:
    monkeypatch.setattr(Room, "takes_also", lambda *_: room_for_both)
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
    monkeypatch.setattr(Room, "takes_also", lambda *_: True)
    async with living(tiny, *[OSError("no")] * 3, *[OSError("never")] * 100) as peer:
        scheduler = peer.handler.sessions._served
        await soon(eventually(lambda: len(peer.heard("staying")) == 3))
        assert peer.handler.sessions._served is scheduler
        assert not peer.handler.sessions.draining


async def test_what_was_loaded_in_vain_is_given_back(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the new layers were there, and only measuring them failed."""
    monkeypatch.setattr(Room, "takes_also", lambda *_: True)

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
