"""Peers that stand by, as a client speaks with them, against scripted peers behind real links."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import pytest
import torch

from helpers.loopback import eventually, soon
from helpers.scripted_peers import Chain, chain_of, good, kinds
from swarm.chain import standby as standbys
from swarm.chain.answer import ChainAnswer
from swarm.chain.stage import ChainLink
from swarm.chain.standby import Standby
from swarm.decoding.windows import Window
from swarm.network.links.link import Link
from swarm.outputs import Measured
from swarm.routing.chain import Stage
from swarm.wire.messages import Mirror, Open, Opened, Probe, Progress, WireMessage

Send = Callable[[WireMessage], Awaitable[int]]

ANSWER = ChainAnswer(
    (Window(0, 0, 1, (3, 4, 5), None, 1, 0),), torch.zeros(1, 8), Measured(20.0, (1.0,)), 0.0
)


class Finder:
    """Finds the last peer of a chain, for all places but the first, which we would feed."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.asked: list[tuple[int, str]] = []  # for peers from this layer on, of this dtype

    async def spare(
        self, first: int, last: int, avoid: Collection[str], dtype: str
    ) -> ChainLink | None:
        self.asked.append((first, dtype))
        spare = self._chain.links[-1]
        if first == 0 or spare.peer_id in avoid:
            return None
        return ChainLink(Stage(spare.peer_id, first, last), spare.record, spare.connection)


async def obedient(link: Link, message: WireMessage) -> None:
    """A peer that stands by as it should, and has always come as far as is asked."""
    if isinstance(message, Probe):
        await link.send(Progress(session=message.session, epoch=0, last=99, passed=99))
    elif isinstance(message, Open):
        await link.send(Opened(session=message.session))


class Full:
    """A link that takes no messages of a kind until it is told to."""

    def __init__(self, send: Send, kind: type[WireMessage]) -> None:
        self._send, self._kind = send, kind
        self.waits = asyncio.Event()
        self.empty = asyncio.Event()

    async def send(self, message: WireMessage) -> int:
        if isinstance(message, self._kind):
            self.waits.set()
            await self.empty.wait()
        return await self._send(message)


async def test_a_peer_that_stands_by_is_sought_in_the_dtype_of_its_member() -> None:
    async with chain_of(good, good, obedient) as chain:
        link = chain.links[1]
        chain.links[1] = replace(link, record=link.record.model_copy(update={"dtype": "bfloat16"}))
        async with chain.session(0, 1) as session:
            finder = Finder(chain)
            standby = Standby(session, finder, True)
            standby.answered(ANSWER)
            await eventually(lambda: bool(standby.ready))
            await soon(standby.close())
            assert finder.asked[:2] == [(0, "float32"), (1, "bfloat16")]


@pytest.mark.parametrize(("place", "kind"), [(-1, Open), (0, Mirror)], ids=["opening", "feeding"])
async def test_one_that_was_interrupted_while_it_was_told_is_asked_anew(
    place: int, kind: type[WireMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether it has heard: as it is, it would never be fed, and keep the place from
    others."""
    monkeypatch.setattr(standbys, "LOOK_S", 0.01)
    async with chain_of(good, good, obedient) as chain, chain.session(0, 1) as session:
        full = Full(chain.links[place].connection.send, kind)
        monkeypatch.setattr(chain.links[place].connection, "send", full.send)
        standby = Standby(session, Finder(chain), True)
        standby.answered(ANSWER)
        await soon(full.waits.wait())
        await soon(standby.rest())
        assert standby.peer_ids == set()
        full.empty.set()
        standby.answered(ANSWER)
        await eventually(lambda: bool(standby.ready))
        await soon(standby.close())
        await eventually(lambda: kinds(chain.heard[-1])[-1] == "Close")
        assert kinds(chain.heard[-1]).count("Open") == kinds(chain.heard[-1]).count("Close") - (
            kind is Open
        )
