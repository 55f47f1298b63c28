"""Windows into a chain and answers out of it, against scripted peers behind real links."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from helpers.loopback import eventually, soon
from helpers.scripted_peers import (
    HIDDEN,
    WINDOW,
    Chain,
    Script,
    answering,
    chain_of,
    give_up_sending,
    good,
    kinds,
    mute_frames,
    result,
)
from swarm.chain import in_flight
from swarm.chain import session as sessions
from swarm.chain.session import ChainSession
from swarm.decoding.windows import Window
from swarm.errors import ChainBroken, ChainSilent
from swarm.network.links.link import Link
from swarm.wire.messages import (
    Cancel,
    Close,
    Frame,
    Opened,
    Pong,
    Progress,
    Rerouted,
    WireMessage,
)


async def test_a_window_is_sent_to_the_first_peer_and_answered_by_the_last() -> None:
    async with chain_of(good) as chain, chain.session(hidden_size=HIDDEN) as session:
        await session.send(WINDOW)
        answer = await soon(session.receive())
        assert (answer.epoch, answer.first, answer.last) == (0, 1, 3)
        assert answer.hidden.shape == (2, HIDDEN)
        assert answer.measured.compute_ms == (1.0,)
        assert answer.measured.loop_ms > 0
        assert session.bytes_sent > 0
        assert session.bytes_received > 2 * HIDDEN * 4


async def test_a_prompt_of_many_chunks_may_be_answered_before_it_is_read() -> None:
    async with chain_of(good) as chain, chain.session(max_tokens=1 << 18) as session:
        for start in range(400):
            await session.send(Window(0, start, start + 1, (3,), None, 0, start))
        for start in range(400):
            assert (await soon(session.receive())).first == start + 1


def windows(*epochs: int) -> list[Window]:
    """One token each, behind each other."""
    return [Window(epoch, i, i + 1, (3,), None, 1, i) for i, epoch in enumerate(epochs)]


async def test_how_long_a_reader_takes_is_not_how_long_the_chain_took() -> None:
    async with (
        chain_of(mute_frames, timed=True) as chain,
        chain.session(clock=chain.clock) as session,
    ):
        sent_at = chain.clock.now
        for window in windows(0, 0):
            await session.send(window)
        await eventually(lambda: kinds(chain.heard[0]) == ["Open", "Frame", "Frame"])
        for frame in chain.heard[0][1:]:
            assert isinstance(frame, Frame)
            chain.clock.now += 0.02
            await chain.servers[0].links[0].send(result(frame))
            await eventually(lambda frame=frame: session._inbox.qsize() == frame.first)
        chain.clock.now += 500.0  # the reader thinks
        answers = [await soon(session.receive()) for _ in range(2)]
        assert [answer.measured.loop_ms for answer in answers] == [
            pytest.approx(20.0),
            pytest.approx(40.0),
        ]
        assert [answer.at - sent_at for answer in answers] == [
            pytest.approx(0.02),
            pytest.approx(0.04),
        ]
        assert session.protocol.patience_s == in_flight.LEAST_HANG_S, (
            "a slow reader is no reason to wait longer for the next"
        )


async def test_what_has_come_while_the_event_loop_was_held_up_is_no_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "GRACE_S", 20.0)
    async with (
        chain_of(mute_frames, timed=True) as chain,
        chain.session(clock=chain.clock) as session,
    ):
        await session.send(WINDOW)
        chain.clock.now += 1e6
        await eventually(lambda: len(chain.heard[0]) == 2)
        receiving = asyncio.create_task(session.receive())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not receiving.done()
        frame = chain.heard[0][1]
        assert isinstance(frame, Frame)
        await chain.servers[0].links[0].send(result(frame))
        assert (await soon(receiving)).first == 1


async def test_whoever_waits_for_a_frame_to_leave_may_be_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was booked is sent all the same, in its turn, and the new epoch is told to all peers."""
    async with chain_of(mute_frames, good) as chain, chain.session() as session:
        connection, may_leave = chain.links[0].connection, asyncio.Event()
        send = connection.send

        async def full(message: WireMessage) -> int:
            await may_leave.wait()
            return await send(message)

        monkeypatch.setattr(connection, "send", full)
        for window in windows(0, 1, 1):
            sending = asyncio.create_task(session.send(window))
            await asyncio.sleep(0)  # it is booked
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
        may_leave.set()
        await session.send(windows(1, 1, 1, 1)[-1])
        await eventually(lambda: len(chain.heard[0]) == 5)
        assert [frame.first for frame in chain.heard[0][1:] if isinstance(frame, Frame)] == [
            1,
            2,
            3,
            4,
        ]
        assert [cancel.epoch for cancel in chain.heard[1][1:] if isinstance(cancel, Cancel)] == [1]
        for frame in chain.heard[0][2:]:
            assert isinstance(frame, Frame)
            await chain.servers[1].links[0].send(result(frame))
        assert [(await soon(session.receive())).first for _ in range(3)] == [2, 3, 4]


async def test_what_is_not_sent_when_a_text_ends_is_never_sent() -> None:
    async with chain_of(good) as chain, chain.session() as session:
        await give_up_sending(session, WINDOW)
        await soon(session.rest())
        await session.send(Window(2, 0, 9, (3,), None, 1, 8))
        assert (await soon(session.receive())).first == 9
        assert kinds(chain.heard[0]) == ["Open", "Cancel", "Frame"]


async def test_a_new_epoch_is_told_to_every_peer_at_once() -> None:
    async with chain_of(mute_frames, good, good) as chain, chain.session() as session:
        for window in windows(0, 0, 1):
            await session.send(window)
        await eventually(
            lambda: [kinds(heard[1:]) for heard in chain.heard[1:]] == [["Cancel"]] * 2
        )
        assert kinds(chain.heard[0][1:]) == ["Frame"] * 3, "the first peer sees it by the frame"
        assert chain.heard[1][1].epoch == chain.heard[2][1].epoch == 1  # type: ignore[attr-defined]


async def test_answers_to_windows_of_an_older_epoch_are_skipped_or_may_never_come() -> None:
    dropped = [3]

    async def forgetful(link: Link, message: WireMessage) -> None:
        if not (isinstance(message, Frame) and message.first in dropped):
            await good(link, message)

    async with chain_of(forgetful) as chain, chain.session() as session:
        for window in windows(0, 0, 0, 2, 2):
            await session.send(window)
        answers = [await soon(session.receive()) for _ in range(2)]
        assert [(answer.epoch, answer.first) for answer in answers] == [(2, 4), (2, 5)]


async def test_windows_that_were_computed_together_are_answered_together() -> None:
    async def merging(link: Link, message: WireMessage) -> None:
        if not isinstance(message, Frame):
            await good(link, message)
        elif message.first == 2:
            await link.send(result(message, tail=2, first=1, count=2))

    async with chain_of(merging) as chain, chain.session() as session:
        for window in windows(0, 0):
            await session.send(window)
        answer = await soon(session.receive())
        assert (answer.first, answer.last, answer.hidden.shape[0]) == (1, 2, 2)
        assert answer.measured.positions == 2


async def test_answers_that_have_come_are_joined_up_to_so_many_rows() -> None:
    async with (
        chain_of(good, timed=True) as chain,
        chain.session(hidden_size=HIDDEN, clock=chain.clock) as session,
    ):
        for window in windows(0, 0, 0, 0):
            await session.send(window)
            chain.clock.now += 1.0
            await eventually(lambda window=window: session._inbox.qsize() == window.first)
        joined = await soon(session.receive(rows=3))
        assert (joined.first, joined.last, joined.count) == (1, 3, 3)
        assert joined.hidden.shape == (3, HIDDEN)
        assert [window.first for window, _ in joined.rows] == [1, 2, 3]
        assert joined.measured.positions == 1, "its times are those of the last answer alone"
        assert (await soon(session.receive(rows=3))).first == 4


def second_is_wrong() -> Script:
    return answering(lambda frame: result(frame, first=7 if frame.first == 2 else frame.first))


@asynccontextmanager
async def wrong_behind_right() -> AsyncIterator[tuple[Chain, ChainSession]]:
    """A session whose next answer has come, and behind it one that cannot be."""
    async with chain_of(second_is_wrong()) as chain, chain.session() as session:
        for window in windows(0, 0):
            await session.send(window)
        await eventually(lambda: session._inbox.qsize() == 2)
        yield chain, session


async def test_a_failure_behind_an_answer_is_raised_when_the_next_one_is_asked_for() -> None:
    async with wrong_behind_right() as (chain, session):
        assert (await soon(session.receive(rows=8))).last == 1
        with pytest.raises(ChainBroken) as caught:
            await soon(session.receive(rows=8))
        assert caught.value.peer_id == chain.peer(0)


async def test_after_a_failure_behind_an_answer_no_other_text_goes_on_in_the_session() -> None:
    async with wrong_behind_right() as (_, session):
        await soon(session.receive(rows=8))
        assert not session.undisturbed()


async def test_a_failure_of_a_peer_that_was_replaced_meanwhile_is_no_news() -> None:
    async with wrong_behind_right() as (_, session), chain_of(good) as others:
        await soon(session.receive(rows=8))
        session.leave(session.chain)
        session.protocol.go_on(others.links, epoch=1)
        receiving = asyncio.create_task(session.receive(rows=8))
        await asyncio.sleep(0.05)
        assert not receiving.done()
        receiving.cancel()


async def test_a_failure_is_not_held_against_a_peer_that_came_back_after_it() -> None:
    async with wrong_behind_right() as (chain, session):
        await soon(session.receive(rows=8))
        session.leave(chain.links)
        await soon(session.join(chain.links, epoch=1))
        session.protocol.go_on(chain.links, epoch=1)
        await session.send(replace(WINDOW, epoch=1, first=4))
        assert (await soon(session.receive(rows=8))).first == 4


async def test_a_chain_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "PROMPT_TIMEOUT_S", 0.05)
    async with chain_of(mute_frames) as chain, chain.session() as session:
        await session.send(WINDOW)
        with pytest.raises(ChainSilent):
            await soon(session.receive())


async def test_while_nothing_is_on_its_way_no_answer_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "PROMPT_TIMEOUT_S", 0.05)
    async with chain_of(good) as chain, chain.session() as session:
        receiving = asyncio.create_task(session.receive())
        await asyncio.sleep(0.2)
        assert not receiving.done()
        await session.send(WINDOW)
        assert (await soon(receiving)).first == 1


async def test_what_was_asked_before_may_be_answered_late() -> None:
    async def late(link: Link, message: WireMessage) -> None:
        if isinstance(message, Frame):
            await link.send(Progress(session=message.session, epoch=0, last=0, passed=0))
            await link.send(Rerouted(session=message.session, epoch=0))
        await good(link, message)

    async with chain_of(late) as chain, chain.session() as session:
        await session.send(WINDOW)
        assert (await soon(session.receive())).first == WINDOW.first
        await session.send(replace(WINDOW, first=4))
        heard = await soon(session.poll(Opened, chain.links, 0.05))
        assert not heard
        assert (await soon(session.receive())).first == 4


WRONG_ANSWERS: dict[str, Callable[[Frame], WireMessage]] = {
    "another token": lambda frame: result(frame, first=7),
    "another epoch": lambda frame: result(frame, epoch=7),
    "another count": lambda frame: result(frame, count=200),
    "a shorter tail": lambda frame: result(frame, tail=1),
    "another width": lambda frame: result(frame, hidden=HIDDEN + 1),
    "out of turn": lambda frame: Opened(session=frame.session),
    "no answer at all": lambda frame: (
        Pong(nonce=1) if frame.first > 1 else Close(session=frame.session)
    ),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_what_was_not_asked_for_is_the_peers_failure(name: str) -> None:
    async with (
        chain_of(answering(WRONG_ANSWERS[name])) as chain,
        chain.session(hidden_size=HIDDEN) as session,
    ):
        await session.send(WINDOW)
        with pytest.raises(ChainBroken):
            await soon(session.receive())


async def test_only_the_last_peer_may_answer() -> None:
    async with chain_of(good, good) as chain, chain.session() as session:
        await session.send(WINDOW)  # the first peer answers it, though it should send it on
        with pytest.raises(ChainBroken) as caught:
            await soon(session.receive())
        assert caught.value.peer_id == chain.peer(0)
