"""A peer of a real model that stands by for another one: it holds the same at any time, and takes
its place at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import torch

from helpers.least_client import (
    AFTER,
    AGAIN,
    LOST,
    PATHS,
    PROMPT,
    ROOT,
    TREE,
    Chain,
    Stage,
    at_the_end_of,
    begun,
    chain,
    goes_on,
)
from helpers.loopback import eventually, opening, session_id, soon, tokens_frame
from helpers.models import LAYERS
from helpers.session_bench import stage
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links import replica_feed
from swarm.wire import token_tree
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Close,
    Fault,
    Mirror,
    Probe,
    Progress,
    Reroute,
    Rerouted,
    WireMessage,
)

LAST = 12  # serial of the last token of LOST


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@pytest.fixture(autouse=True)
def _short_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_tree, "MAX_FRAME_TOKENS", 3)


@asynccontextmanager
async def spare(client: Chain, place: int, **options: int) -> AsyncIterator[Stage]:
    """A peer that stands by for one of a chain; in the end nothing may be left there."""
    member = client.stages[place]
    (new,) = await client.start(member.first, member.last, **options)
    behind = client.stages[place + 1] if place + 1 < len(client.stages) else None
    await client.open([new], behind, client.stages[place - 1], member)
    await client.stages[place - 1].link.send(Mirror(session=session_id(), to=new.peer.server.hop))
    yield new
    await new.link.send(Close(session=session_id()))
    await eventually(lambda: new.peer.idle)


async def reaches(spare: Stage, serial: int) -> Progress:
    """Wait until a peer that stands by has come so far."""
    while True:
        await spare.link.send(Probe(session=session_id()))
        standing = await soon(spare.link.receive())
        assert isinstance(standing, Progress), standing
        if standing.last >= serial:
            return standing


def held(stage: Stage) -> tuple[list[int], list[int], int, int]:
    """What a session holds, and how many rows its cache has."""
    session = stage.peer.handler.sessions[session_id()]
    return (
        session.tree._serials,
        session.tree._sees,
        session.tree.trunk,
        session._cache.length,
    )


async def take_over(client: Chain, place: int, new: Stage, epoch: int = 1) -> WireMessage:
    """Let a peer that stands by take its place. What the peer before it says."""
    client.stages[place] = new
    before = client.stages[place - 1].link
    message = Reroute(
        session=session_id(), epoch=epoch, root=ROOT, next=new.peer.server.hop, replay=None
    )
    await before.send(message)
    return await client.heard(place - 1)


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize(
    "when", ["at the beginning", "after the prompt", "in the middle of branches", "at the end"]
)
async def test_it_takes_the_place_without_a_replay(
    place: int, when: str, span: Span, tiny: Checkpoint
) -> None:
    moments = ["at the beginning", "after the prompt", "in the middle of branches", "at the end"]
    async with chain(tiny, 0, 1, 3, 4) as client:
        for moment, frame in zip(moments, (PROMPT, TREE, LOST), strict=False):
            if moment == when:
                break
            await client.ask(frame)
        async with spare(client, place) as new:
            for frame in (PROMPT, TREE, LOST)[moments.index(when) :]:
                await client.ask(frame)
            await reaches(new, LAST)
            await client.die(place)
            assert await take_over(client, place, new) == Rerouted(session=session_id(), epoch=1)
            await goes_on(client, span)


async def test_it_holds_what_the_other_one_does(tiny: Checkpoint) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        async with spare(client, 1) as new:
            for frame in (LOST, AGAIN, AFTER):
                await client.ask(frame)
                await reaches(new, frame.first + frame.count - 1)
                # a token has begun before it has rows
                await eventually(lambda: held(new) == held(client.stages[1]))


async def test_the_failed_peers_spare_goes_on_to_another_peer(span: Span, tiny: Checkpoint) -> None:
    """The peer behind it has been replaced meanwhile, by one that stood by too."""
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        async with spare(client, 1) as middle, spare(client, 2) as last:
            await reaches(last, 9)
            await reaches(middle, 9)
            await client.die(2)
            fault = await soon(middle.link.receive())
            assert isinstance(fault, Fault)
            assert fault.code == FaultCode.NEXT_UNREACHABLE
            assert await take_over(client, 2, last) == Rerouted(session=session_id(), epoch=1)
            hop = last.peer.server.hop
            await middle.link.send(
                Reroute(session=session_id(), epoch=1, root=ROOT, next=hop, replay=None)
            )
            assert await soon(middle.link.receive()) == Rerouted(session=session_id(), epoch=1)
            await goes_on(client, span)
            await reaches(middle, 16)
            await client.heed(last, client.stages[1], middle)
            await client.die(1)
            client.stages[1] = middle
            message = Reroute(
                session=session_id(), epoch=2, root=13, next=middle.peer.server.hop, replay=None
            )
            await client.stages[0].link.send(message)
            assert await client.heard(0) == Rerouted(session=session_id(), epoch=2)
            frame = tokens_frame(17, (24, 25), root=13, parents=(4, 1), epoch=2)
            expected = at_the_end_of(span, [(23, 24), (23, 24, 25)])
            torch.testing.assert_close(await client.ask(frame), expected, rtol=1e-4, atol=1e-4)


async def test_after_it_took_the_place_another_one_may_stand_by(
    span: Span, tiny: Checkpoint
) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        async with spare(client, 1) as new:
            await reaches(new, 9)
            await client.die(1)
            assert await take_over(client, 1, new) == Rerouted(session=session_id(), epoch=1)
            async with spare(client, 1) as another, spare(client, 2) as behind:
                await goes_on(client, span)
                await reaches(another, 16)
                await reaches(behind, 16)
                # a token has begun before it has rows
                await eventually(lambda: held(another) == held(new))
                # a token has begun before it has rows
                await eventually(lambda: held(behind) == held(client.stages[2]))


@pytest.mark.parametrize(
    "how", ["it dies", "it has no room", "it is unknown", "it is too slow", "it is not wanted"]
)
async def test_one_that_fails_disturbs_nobody(
    how: str, span: Span, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        before = client.stages[0]
        downstream = before.peer.handler.sessions[session_id()].downstream
        (new,) = await client.start(1, 3)
        if how == "it is too slow":
            monkeypatch.setattr(replica_feed, "MAX_BEHIND_TOKENS", 0)
        if how == "it has no room":
            next_link, previous = client.stages[2].peer.server.hop, before.peer.id
            await new.link.send(
                opening(tiny.fingerprint, 1, 3, max_tokens=3, next=next_link, previous=previous)
            )
            await soon(new.link.receive())
        elif how != "it is unknown":
            await client.open([new], client.stages[2], before, client.stages[1])
        await before.link.send(Mirror(session=session_id(), to=new.peer.server.hop))
        if how != "it is unknown":  # which is soon noticed
            await eventually(lambda: downstream._standby is not None)
        if how == "it is not wanted":
            await before.link.send(Mirror(session=session_id()))
        if how == "it dies":
            await reaches(new, 9)
            for link in [*new.peer.server.links, new.link]:
                link._transport.abort()
        torch.testing.assert_close(
            await client.ask(LOST), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4
        )
        if how != "it has no room":  # of which only its client is told
            await eventually(lambda: downstream._standby is None or downstream._standby.feed.over)
        await goes_on(client, span)


async def test_without_a_history_nobody_can_stand_by(span: Span, tiny: Checkpoint) -> None:
    async with chain(tiny, 0, 1, 3, 4, history_bytes=100) as client:
        await begun(client)
        async with spare(client, 1) as new:
            await client.ask(LOST)
            await new.link.send(Probe(session=session_id()))
            standing = await soon(new.link.receive())
            assert isinstance(standing, Progress)
            assert standing.last == 0
            await goes_on(client, span)


async def test_one_that_holds_too_little_is_noticed_when_the_text_goes_on(
    span: Span, tiny: Checkpoint
) -> None:
    """It is said to hold everything, and was never told."""
    async with chain(tiny, 0, 1, 3, 4) as client:
        await begun(client)
        (new,) = await client.start(1, 3)
        await client.open([new], client.stages[2], client.stages[0])
        await client.die(1)
        assert await take_over(client, 1, new) == Rerouted(session=session_id(), epoch=1)
        await client.send(AGAIN)
        fault = await soon(new.link.receive())
        assert isinstance(fault, Fault)
        assert fault.code == FaultCode.OUT_OF_ORDER
        (other,) = await client.start(1, 3)
        await client.open([other], client.stages[2], client.stages[0])
        client.stages[1] = other
        hop = other.peer.server.hop
        await client.stages[0].link.send(
            Reroute(session=session_id(), epoch=2, root=ROOT, next=hop)
        )
        assert await client.heard(0) == Rerouted(session=session_id(), epoch=2)
        frame = AGAIN.model_copy(update={"epoch": 2, "first": 16, "parents": (8, 1, 10)})
        torch.testing.assert_close(
            await client.ask(frame), at_the_end_of(span, PATHS), rtol=1e-4, atol=1e-4
        )


async def test_mirrors_are_bounded_in_number(span: Span) -> None:
    async with stage(span, last=False, max_reroutes=2) as each:
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.following.frame()
        for _ in range(2):
            each.session.mirror(Mirror(session=session_id(), to=each.other_hop))
            assert (await each.other.frame()).replay == 0
        each.session.mirror(Mirror(session=session_id(), to=each.other_hop))
        await eventually(lambda: each.session._mirror is None)
        each.session.accept(tokens_frame(3, (5,), root=2))
        assert (await each.following.frame()).first == 3
        assert each.session.downstream._standby is not None
