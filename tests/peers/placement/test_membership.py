"""Who is there, told by records and by pings to real ports."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from helpers.loopback import Server, new_member, pong, soon
from helpers.models import LAYERS
from peers.placement import membership as censuses
from peers.placement.membership import Membership, as_serving, usual_speed
from swarm.identity import Identity
from swarm.network.dht.crawl import CrawlSample
from swarm.network.dht.records import PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.routing.placement import ServedSpan


class Records:
    """A directory that says what it is told to."""

    def __init__(self) -> None:
        self.found: list[PeerRecord] = []

    async def survey(self, fingerprint: str, model_layers: int) -> CrawlSample[PeerRecord]:
        return CrawlSample(tuple(self.found), (1.0,) * len(self.found), len(self.found), True)


class Lab:
    def __init__(self, stack: AsyncExitStack, dialer: Dialer) -> None:
        self._stack, self.directory, self.me = stack, Records(), Identity.generate().peer_id
        self.membership = Membership(self.directory, dialer, "0" * 32, LAYERS, self.me)  # type: ignore[arg-type]

    async def peer(self, first: int, last: int, *, answers: bool = True, **changes: object) -> str:
        server = Server(pong)
        server.address = "127.0.0.1:1"
        if answers:
            await self._stack.enter_async_context(server)
        self.directory.found.append(server.record(first_layer=first, last_layer=last, **changes))
        return server.identity.peer_id

    async def taken(self, mine: tuple[int, int] | None = None) -> set[str] | None:
        records = await soon(self.membership.take(mine))
        return None if records is None else {record.peer_id for record in records}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    dialer = Dialer(new_member())
    async with AsyncExitStack() as stack:
        yield Lab(stack, dialer)
    await dialer.close()


async def test_those_count_that_answer_and_serve_or_are_about_to(lab: Lab) -> None:
    good, coming = await lab.peer(0, 2), await lab.peer(1, 3, state="joining")
    await lab.peer(2, 4, state="draining")
    await lab.peer(2, 4, answers=False)
    assert await lab.taken() == {good, coming}
    assert lab.membership.peers == 4


async def test_an_empty_swarm_is_no_fault_of_ours_but_silence_may_be(lab: Lab) -> None:
    assert await lab.taken() == set()
    await lab.peer(0, 2, answers=False)
    assert await lab.taken() is None


async def test_of_a_large_swarm_those_are_asked_on_whom_it_depends(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(censuses, "EVERYBODY", 2)
    crowd = {await lab.peer(0, 1, answers=i > 2) for i in range(6)}
    middle = {await lab.peer(1, 2, answers=False) for _ in range(3)}
    dead, alive = await lab.peer(2, 4, answers=False), await lab.peer(2, 4)
    assert await lab.taken() == crowd | middle | {alive}
    mine = await lab.taken((0, 1))
    assert mine is not None
    assert dead not in mine
    assert len(mine & crowd) == 3  # whoever serves what we do has to be there before we leave


async def test_more_are_asked_where_some_turned_out_to_be_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(censuses, "ASK_AT_ONCE", 1)
    alive = {await lab.peer(0, 2), await lab.peer(2, 4)}
    for _ in range(2):
        await lab.peer(0, 2, answers=False)
    assert await lab.taken() == alive


def record(speed: float, state: str) -> PeerRecord:
    server = Server(pong)
    server.address = "127.0.0.1:1"
    return server.record(tokens_per_second=speed, state=state)


def test_who_has_not_measured_yet_is_as_fast_as_others() -> None:
    records = [
        record(0.0, "joining"),
        record(3.0, "online"),
        record(5.0, "online"),
        record(100.0, "online"),
    ]
    assert usual_speed(records) == 5.0
    assert [serving.tokens_per_second for serving in as_serving(records)] == [5.0, 3.0, 5.0, 100.0]
    assert as_serving(records[:1]) == [ServedSpan(records[0].peer_id, 0, LAYERS, 1.0)]
