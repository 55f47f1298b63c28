"""Where outputs go: to the client, to the next peer, and after a reroute to another one that is
given all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import torch

from helpers.loopback import Server, dialed, new_member, opening, session_id, soon, tokens_frame
from helpers.models import LAYERS
from helpers.session_bench import Other, stick
from peers.compute.history import History
from peers.compute.scheduler import Computed
from peers.faults import SessionFault
from peers.sessions.downstream import Downstream
from peers.sessions.next_links import NextLinks
from swarm.identity import Identity
from swarm.network.links.dialer import Dialer
from swarm.util.tasks import end
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Fault,
    Frame,
    Hop,
    Reroute,
    Rerouted,
    Result,
    WireMessage,
)
from swarm.wire.tensors import MAX_FRAME_TOKENS
from swarm.wire.token_tree import Placement, TokenTree

HIDDEN = 4
NOBODY = Hop(peer_id=Identity.generate().peer_id, address="127.0.0.1:1", certificate="0" * 64)


@dataclass
class Place:
    """An outlet between a client and two peers, of which the first one follows."""

    downstream: Downstream
    links: NextLinks
    client: Other
    next: Other
    other: Other
    hop: Hop
    other_hop: Hop

    def computed(self, *numbers: int) -> Computed:
        return Computed(rows(*numbers), 2.0, 3.0)

    def reroute(self, root: int, hop: Hop, replay: int = 0) -> Reroute:
        return Reroute(session=session_id(), epoch=5, root=root, next=hop, replay=replay)


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, HIDDEN)


def told(frame: Frame) -> list[float]:
    assert frame.hidden is not None
    return frame.hidden.unpack()[:, 0].tolist()


def placement(start: int, *keep: int) -> Placement:
    return Placement(start, keep, (), start, None)


@asynccontextmanager
async def place(*, last: bool = False, history: History | None = None) -> AsyncIterator[Place]:
    client, following, other = Other(), Other(), Other()
    dialer = Dialer(new_member())
    links = NextLinks(dialer, lambda *_: None, lambda _: None)
    async with (
        Server(client.listen) as at_client,
        Server(following.listen) as at_next,
        Server(other.listen) as at_other,
        dialed(at_client) as to_client,
    ):
        opened = opening("0" * 32, 0, LAYERS, next=None if last else at_next.hop)
        link = None if last else await links.to(at_next.hop)
        downstream = Downstream(opened, to_client, links, link, history)
        yield Place(downstream, links, client, following, other, at_next.hop, at_other.hop)
        await downstream.close()
        await downstream.close()
        assert not any(links._users.values()), "every link is given back"
        await links.close()
        await dialer.close()


async def test_the_next_peer_gets_hidden_states_and_how_long_they_took() -> None:
    async with place() as each:
        frame = tokens_frame(
            4, (7, 8), root=3, parents=(1, 2), tail=1, epoch=2, compute_ms=(1.0,), queue_ms=(0.5,)
        )
        await each.downstream.send(frame, each.computed(1, 2))
        passed = await each.next.frame()
        kept = {"session", "epoch", "root", "first", "parents", "tail", "replay"}
        assert passed.model_dump(include=kept) == frame.model_dump(include=kept)
        assert (passed.tokens, told(passed)) == (None, [1, 2])
        assert (passed.compute_ms, passed.queue_ms) == ((1.0, 2.0), (0.5, 3.0))
        assert each.downstream.passed == 5


async def test_the_last_peer_answers_the_client_with_the_tail() -> None:
    async with place(last=True) as each:
        await each.downstream.send(tokens_frame(4, (7, 8, 9), tail=2), each.computed(1, 2, 3))
        result = await each.client.next()
        assert isinstance(result, Result)
        assert (result.first, result.count, result.hidden.unpack()[:, 0].tolist()) == (4, 3, [2, 3])
        assert not each.downstream.lost


@pytest.mark.parametrize(("replay", "passed_on"), [(0, None), (1, 0), (3, 2)])
async def test_what_is_replayed_goes_to_so_many_more(replay: int, passed_on: int | None) -> None:
    async with place() as each:
        await each.downstream.send(tokens_frame(1, (7,), tail=0, replay=replay), each.computed(1))
        await each.downstream.send(tokens_frame(2, (8,)), each.computed(2))
        if passed_on is not None:
            assert (await each.next.frame()).replay == passed_on
        frame = await each.next.frame()
        assert (frame.first, frame.replay) == (2, None)


@pytest.mark.parametrize("replay", [0, 2])
async def test_what_is_replayed_is_answered_to_nobody(replay: int) -> None:
    async with place(last=True) as each:
        await each.downstream.send(tokens_frame(1, (7,), tail=0, replay=replay), each.computed(1))
        await each.downstream.send(tokens_frame(2, (8,)), each.computed(2))
        result = await each.client.next()
        assert isinstance(result, Result)
        assert result.first == 2


async def test_a_client_that_is_gone_is_a_fault() -> None:
    async with place(last=True) as each:
        await each.downstream.opener.close()
        with pytest.raises(SessionFault, match="the client is gone"):
            await each.downstream.send(tokens_frame(1, (7,)), each.computed(1))
        await each.downstream.tell(SessionFault(FaultCode.BUSY, "nobody hears it, nothing happens"))


async def test_a_next_peer_that_is_gone_is_named_to_the_client_once() -> None:
    async with place() as each:
        link = each.downstream.link
        assert link is not None
        await link.close()
        for first in (1, 2):
            await each.downstream.send(tokens_frame(first, (7,)), each.computed(1))
        fault = await each.client.next()
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer, fault.session) == (
            FaultCode.NEXT_UNREACHABLE,
            each.hop.peer_id,
            session_id(),
        )
        assert (each.downstream.lost, each.downstream.passed) == (True, 0)
        assert each.client.heard.empty()


async def test_only_the_link_that_is_in_use_can_be_lost() -> None:
    async with place() as each:
        link = each.downstream.link
        assert link is not None
        assert (
            each.downstream.lose(each.downstream.opener, FaultCode.INTERNAL, "another one") is None
        )
        assert not each.downstream.lost
        fault = each.downstream.lose(link, FaultCode.INTERNAL, "it hurts")
        assert fault is not None
        assert (fault.code, fault.text, fault.peer) == (
            FaultCode.INTERNAL,
            "it hurts",
            each.hop.peer_id,
        )
        assert each.downstream.lost
        assert each.downstream.lose(link, FaultCode.INTERNAL, "it hurts") is None


async def test_a_reroute_gives_the_new_peer_all_that_is_kept_and_says_so() -> None:
    count, root = 2 * MAX_FRAME_TOKENS + 3, 900
    async with place(history=History(1000)) as each:
        each.downstream.keep(placement(0), rows(*range(count + 5)))
        each.downstream.keep(placement(count))
        await each.downstream.reroute(each.reroute(root, each.other_hop, replay=2))
        assert await each.client.next() == Rerouted(session=session_id(), epoch=5)
        assert (each.downstream.hop, each.downstream.lost, each.downstream.passed) == (
            each.other_hop,
            False,
            root,
        )
        stream, got = TokenTree(), []
        for _ in range(3):
            frame = await each.other.frame()
            assert (frame.epoch, frame.replay, frame.tail) == (5, 2, 0)
            assert stream.admit(
                frame.epoch, frame.root, frame.first, frame.count, frame.parents, replay=True
            )
            got += told(frame)
        assert got == list(range(count))
        assert (stream.last, stream.length) == (root, count)
        await each.downstream.send(tokens_frame(901, (7,), epoch=5, root=root), each.computed(1))
        assert (await each.other.frame()).first == 901
        assert each.next.heard.empty()


async def test_a_reroute_to_nobody_is_told_and_another_one_may_follow() -> None:
    async with place(history=History(10)) as each:
        each.downstream.keep(placement(0), rows(1, 2))
        await each.downstream.reroute(each.reroute(2, NOBODY))
        fault = await each.client.next()
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer) == (FaultCode.NEXT_UNREACHABLE, NOBODY.peer_id)
        assert each.downstream.lost
        # nobody is there, nothing happens
        await each.downstream.send(tokens_frame(3, (7,)), each.computed(3))
        await each.downstream.reroute(each.reroute(2, each.other_hop))
        assert await each.client.next() == Rerouted(session=session_id(), epoch=5)
        assert told(await each.other.frame()) == [1, 2]


async def test_a_peer_that_is_lost_while_it_is_given_what_was_kept_gets_no_more_of_it() -> None:
    async with place(history=History(10_000)) as each:
        each.downstream.keep(placement(0), rows(*range(9 * MAX_FRAME_TOKENS)))
        link = await each.links.to(each.other_hop)
        send, sent = link.send, 0

        async def break_down(message: WireMessage) -> int:
            nonlocal sent
            sent += 1
            if sent == 3:
                await link.close()
            return await send(message)

        link.send = break_down  # type: ignore[method-assign]
        await each.downstream.reroute(each.reroute(9 * MAX_FRAME_TOKENS, each.other_hop))
        fault = await each.client.next()
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer) == (FaultCode.NEXT_UNREACHABLE, each.other_hop.peer_id)
        assert (each.downstream.lost, sent) == (True, 3)
        assert each.client.heard.empty(), "it was not rerouted"
        each.links.release(link)


async def test_a_reroute_that_is_given_up_leaves_no_link_in_use() -> None:
    async with place(history=History(10)) as each:
        each.downstream.keep(placement(0), rows(1))
        link = await each.links.to(each.other_hop)
        entered = stick(link)
        rerouting = asyncio.create_task(each.downstream.reroute(each.reroute(1, each.other_hop)))
        await soon(entered.wait())
        assert each.links._users[link] == 2
        await end(rerouting)
        await each.downstream.close()
        assert each.links._users[link] == 1
        each.links.release(link)


async def test_without_a_history_nothing_is_kept() -> None:
    async with place() as each:
        each.downstream.keep(placement(0), rows(1, 2))
        await each.downstream.send(tokens_frame(1, (7, 8)), each.computed(1, 2))
        assert told(await each.next.frame()) == [1, 2]
