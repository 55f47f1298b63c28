"""The client's side of a chain, against scripted peers behind real links."""

import asyncio

import pytest

from helpers.loopback import eventually, soon
from helpers.scripted_peers import (
    WINDOW,
    chain_of,
    good,
    kinds,
    mute,
    mute_frames,
    refusing,
    result,
)
from swarm.chain import session as sessions
from swarm.chain.events import Received
from swarm.chain.terms import Terms
from swarm.decoding.windows import Window
from swarm.errors import ChainBroken
from swarm.identity import Identity
from swarm.network.links.link import Link
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    AcceptFrom,
    Accepting,
    Fault,
    Frame,
    Open,
    Opened,
    Probe,
    Progress,
    Result,
    WireMessage,
)
from swarm.wire.tensors import WireTensor


async def test_a_session_is_opened_on_every_peer_and_closed_again() -> None:
    async with chain_of(good, good) as chain:
        async with chain.session():
            first, second = (heard[0] for heard in chain.heard)
            assert isinstance(first, Open)
            assert isinstance(second, Open)
            assert (first.first, first.last, second.first, second.last) == (0, 1, 1, 2)
            assert (first.previous, second.previous) == (None, chain.peer(0))
            assert first.session == second.session
            assert first.next is not None
            assert first.next.address == chain.servers[1].address
            assert second.next is None
        await eventually(lambda: [kinds(heard) for heard in chain.heard] == [["Open", "Close"]] * 2)
        assert not any(link.connection._inboxes for link in chain.links)


async def test_the_chain_takes_branches_if_every_peer_does() -> None:
    async def linear(link: Link, message: WireMessage) -> None:
        if isinstance(message, Open):
            await link.send(Opened(session=message.session, branches=False))

    async with chain_of(good, good) as chain, chain.session() as session:
        assert session.protocol.branches
    async with chain_of(good, linear) as chain, chain.session() as session:
        assert not session.protocol.branches


@pytest.mark.parametrize("blamed", [0, 1])
async def test_a_peer_that_refuses_is_named_and_the_others_are_told(blamed: int) -> None:
    scripts = [good, good]
    scripts[blamed] = refusing(FaultCode.BUSY)
    async with chain_of(*scripts) as chain:
        with pytest.raises(ChainBroken) as caught:
            await soon(chain.session().open())
        assert caught.value.peer_id == chain.peer(blamed)
        assert caught.value.layers == (blamed, blamed + 1)
        with pytest.raises(ChainBroken):
            async with chain.session():
                raise AssertionError("it was not opened")
        await eventually(lambda: all("Close" in kinds(heard) for heard in chain.heard))
        assert f"layers {blamed}:{blamed + 1}" in str(caught.value)


async def test_a_peer_may_accuse_the_one_that_comes_next_and_nobody_else() -> None:
    async with chain_of(good, good, good) as chain, chain.session() as session:
        for accused, blamed in (
            (chain.peer(1), 1),
            (chain.peer(2), 0),
            (Identity.generate().peer_id, 0),
            (None, 0),
        ):
            fault = Fault(
                code=FaultCode.NEXT_UNREACHABLE, text="gone", session=b"0" * 16, peer=accused
            )
            assert session.protocol.failure(
                Received(chain.peer(0), fault, 0.0)
            ).peer_id == chain.peer(blamed)
        fault = Fault(code=FaultCode.INTERNAL, text="", session=b"0" * 16, peer=chain.peer(0))
        assert session.protocol.failure(Received(chain.peer(2), fault, 0.0)).peer_id == chain.peer(
            2
        )


@pytest.mark.parametrize("waits_for", ["an answer", "another message"])
async def test_a_fault_that_names_nobody_and_is_about_a_peer_that_left_is_no_news(
    waits_for: str,
) -> None:
    async def complaining(link: Link, message: WireMessage) -> None:
        if isinstance(message, Probe):
            await link.send(
                Fault(code=FaultCode.NOT_FINITE, text="no numbers", session=message.session)
            )
            await link.send(Progress(session=message.session, epoch=0, last=0, passed=0))
        else:
            await good(link, message)

    async with chain_of(good, complaining) as chain, chain.session() as session:
        session.leave([chain.links[0]])
        await session.tell(chain.links[1], Probe(session=session.protocol.id))
        if waits_for == "an answer":
            receiving = asyncio.create_task(session.receive())
            await asyncio.wait({receiving}, timeout=0.05)
            assert not receiving.done()
            receiving.cancel()
        else:
            await soon(session.expect(Progress, [chain.links[1]], 20.0))


async def test_a_next_peer_that_is_unreachable_is_the_one_to_blame() -> None:
    names: list[str] = []

    async def blame_next(link: Link, message: WireMessage) -> None:
        await refusing(FaultCode.NEXT_UNREACHABLE, names[1])(link, message)

    async with chain_of(blame_next, good) as chain:
        names.extend(link.stage.peer_id for link in chain.links)
        with pytest.raises(ChainBroken) as caught:
            await soon(chain.session().open())
        assert caught.value.peer_id == chain.peer(1)


async def test_a_silent_peer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OPEN_TIMEOUT_S", 0.2)
    async with chain_of(good, mute) as chain:
        with pytest.raises(ChainBroken, match="no answer") as caught:
            await soon(chain.session().open())
        assert caught.value.peer_id == chain.peer(1)


async def test_peers_that_left_are_not_heard_and_those_that_came_are() -> None:
    async with chain_of(mute_frames, mute_frames, good) as chain:
        old, new, last = chain.links
        session = chain.session(0, 2)
        async with session:
            await session.send(WINDOW)
            session.leave([old])
            await session.join([new], last.hop)
            session.protocol.go_on([new, last], epoch=3)
            await (
                chain.servers[0]
                .links[0]
                .send(Fault(code=FaultCode.INTERNAL, text="", session=session.protocol.id))
            )
            await (
                chain.servers[2]
                .links[0]
                .send(
                    Fault(
                        code=FaultCode.NEXT_UNREACHABLE,
                        text="",
                        session=session.protocol.id,
                        peer=chain.peer(0),
                    )
                )
            )
            receiving = asyncio.create_task(session.receive())
            await session.send(Window(3, 0, 9, (3,), None, 1, 0))
            assert session.protocol.last_sent == 9
            await eventually(lambda: "Frame" in kinds(chain.heard[1]))
            assert not receiving.done()
            frame = next(message for message in chain.heard[1] if isinstance(message, Frame))
            await chain.servers[2].links[0].send(result(frame))
            assert (await soon(receiving)).first == 9
        await eventually(lambda: kinds(chain.heard[1])[-1] == "Close")


async def test_what_peers_say_when_asked_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell_standing(link: Link, message: WireMessage) -> None:
        await good(link, message)
        if isinstance(message, Probe):
            await link.send(Progress(session=message.session, epoch=1, last=7, passed=5))

    async def refuse_probe(link: Link, message: WireMessage) -> None:
        await good(link, message)
        if isinstance(message, Probe):
            await link.send(Fault(code=FaultCode.NO_SESSION, text="", session=message.session))

    async with chain_of(tell_standing, refuse_probe, good) as chain, chain.session() as session:
        for link in chain.links:
            await session.tell(link, Probe(session=session.protocol.id))
        heard = await soon(session.poll(Progress, chain.links, 0.2))
        assert isinstance(heard[chain.peer(0)], Progress)
        assert isinstance(heard[chain.peer(1)], ChainBroken)
        assert chain.peer(2) not in heard


@pytest.mark.parametrize("moment", ["opening", "waiting", "sending"])
@pytest.mark.parametrize("dying", [0, 1])
async def test_a_peer_may_die_at_any_moment(moment: str, dying: int) -> None:
    scripts = [good, good]
    scripts[dying] = mute if moment == "opening" else good
    async with chain_of(*scripts) as chain:
        session = chain.session()

        def die() -> None:
            chain.servers[dying].links[0]._transport.abort()

        async def live() -> None:
            async with session:
                if moment == "sending":
                    die()
                    await eventually(lambda: chain.links[dying].connection.closed)
                    await session.send(WINDOW)
                await session.receive()

        living = asyncio.create_task(live())
        if moment != "sending":
            await eventually(lambda: len(chain.heard[dying]) == 1)
            die()
        with pytest.raises(ChainBroken) as caught:
            await soon(living)
        assert caught.value.peer_id == chain.peer(dying)


async def test_a_cancelled_generation_says_goodbye() -> None:
    async with chain_of(good, good) as chain:
        opened = asyncio.Event()

        async def generate() -> None:
            async with chain.session() as session:
                opened.set()
                await session.receive()

        generating = asyncio.create_task(generate())
        await soon(opened.wait())
        generating.cancel()
        await asyncio.wait({generating})
        assert generating.cancelled()
        await eventually(lambda: all(kinds(heard) == ["Open", "Close"] for heard in chain.heard))


async def test_closing_does_not_wait_for_a_peer_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "CLOSE_TIMEOUT_S", 0.05)
    async with chain_of(good) as chain:
        async with chain.session() as session:
            link = chain.links[0].connection.link
            monkeypatch.setattr(link, "send", lambda _: asyncio.Event().wait())
        await soon(session.close())


async def test_whoever_comes_before_is_named_once_and_waited_for() -> None:
    go_on = asyncio.Event()

    async def slow(link: Link, message: WireMessage) -> None:
        if isinstance(message, AcceptFrom):
            await go_on.wait()
            await link.send(Accepting(session=message.session, speakers=message.speakers))
        else:
            await good(link, message)

    async with chain_of(good, slow) as chain, chain.session() as session:
        last, new = chain.links[1], Identity.generate().peer_id
        await soon(session.accepted(last, chain.peer(0)))  # as it was opened
        await session.accept_from(last, chain.peer(0), new)
        await session.accept_from(last, chain.peer(0), new)
        waiting = asyncio.create_task(session.accepted(last, new))
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done()
        go_on.set()
        await soon(waiting)
        assert kinds(chain.heard[1]) == ["Open", "AcceptFrom"]


async def test_who_does_not_say_that_it_heeds_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ACCEPT_TIMEOUT_S", 0.05)
    async with chain_of(good, good) as chain, chain.session() as session:
        new = Identity.generate().peer_id
        await session.accept_from(chain.links[1], new)
        with pytest.raises(ChainBroken, match="no answer") as caught:
            await soon(session.accepted(chain.links[1], new))
        assert caught.value.peer_id == chain.peer(1)


async def test_a_confirmation_that_comes_while_others_are_waited_for_counts() -> None:
    async def heeding(link: Link, message: WireMessage) -> None:
        if isinstance(message, AcceptFrom):
            await link.send(Accepting(session=message.session, speakers=message.speakers))
        elif isinstance(message, Probe):
            await link.send(Progress(session=message.session, epoch=0, last=0, passed=0))
        else:
            await good(link, message)

    async with chain_of(good, heeding) as chain, chain.session() as session:
        new = Identity.generate().peer_id
        await session.accept_from(chain.links[1], new)
        await session.tell(chain.links[1], Probe(session=session.protocol.id))
        await session.expect(Progress, [chain.links[1]], 20.0)
        await soon(session.accepted(chain.links[1], new))


async def test_a_peer_that_sends_more_bytes_than_were_asked_for_is_left() -> None:
    wide = WireTensor(dtype="float32", tokens=256, hidden=4096, data=bytes(4 * 256 * 4096))

    async def flood(link: Link, message: WireMessage) -> None:
        await good(link, message)
        if isinstance(message, Open):
            many = Result(session=message.session, epoch=0, first=1, count=256, hidden=wide)
            for _ in range(4):
                await link.send(many)

    async with chain_of(flood) as chain, chain.session(hidden_size=16) as session:
        await eventually(lambda: chain.links[0].connection.closed)
        assert session._inbox.nbytes <= Terms("", 64, hidden_size=16).most_waiting_bytes
