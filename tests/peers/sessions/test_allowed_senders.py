"""Who may speak in a session: its opener, and the peers that the opener has named, as their links
have proved."""

import pytest
import torch

from helpers.loopback import (
    Peer,
    ask,
    dialed,
    eventually,
    hidden_frame,
    new_member,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from peers.sessions.session import PeerSession
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    AcceptFrom,
    Accepting,
    Cancel,
    Close,
    Fault,
    Mirror,
    Opened,
    Ping,
    Pong,
    Probe,
    Progress,
    Reroute,
    Result,
    WireMessage,
)

MIDDLE, HIDDEN = 2, 32


@pytest.fixture(scope="module")
def whole(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@pytest.fixture(scope="module")
def upper(tiny: Checkpoint) -> Span:
    return Span.load(tiny, MIDDLE, LAYERS)


def unknown(answer: WireMessage) -> bool:
    return isinstance(answer, Fault) and answer.code == FaultCode.NO_SESSION


@pytest.mark.threat("foreign-session")
@pytest.mark.parametrize("defended", [True, False])
async def test_nobody_puts_words_into_anothers_mouth(
    defended: bool, whole: Span, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mallory has learned the id of a session, and tells its peer a frame."""
    if not defended:
        monkeypatch.setattr(PeerSession, "takes_frames_from", lambda *_: True)
    async with (
        Peer(whole, tiny.fingerprint) as peer,
        dialed(peer.server) as client,
        dialed(peer.server) as mallory,
    ):
        assert isinstance(await ask(client, opening(tiny.fingerprint, 0, LAYERS)), Opened)
        await mallory.send(tokens_frame(1, (7, 7, 7)))
        if defended:
            assert unknown(await soon(mallory.receive()))
            assert isinstance(await ask(client, tokens_frame(1, (3,))), Result)
        else:
            answer = await soon(client.receive())
            assert isinstance(answer, Result), "an answer to what the client never said"
            assert answer.count == 3
        await client.send(Close(session=session_id()))
        await eventually(lambda: peer.idle)


@pytest.mark.threat("foreign-session")
@pytest.mark.parametrize("defended", [True, False])
async def test_nobody_commands_anothers_session(
    defended: bool, upper: Span, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the peer before, which does speak in it."""
    if not defended:
        monkeypatch.setattr(PeerSession, "obeys", lambda *_: True)
    before = new_member()
    async with Peer(upper, tiny.fingerprint) as peer, dialed(peer.server) as client:
        async with dialed(peer.server, me=before) as previous:
            message = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=before.peer_id)
            assert isinstance(await ask(client, message), Opened)
            hop = peer.server.hop
            for command in (
                AcceptFrom(session=session_id(), speakers=(new_member().peer_id,)),
                Reroute(session=session_id(), epoch=1, root=0, next=hop),
                Mirror(session=session_id(), to=hop),
                Probe(session=session_id()),
            ):
                if defended:
                    assert unknown(await ask(previous, command)), command
            if defended:
                for command in (Cancel(session=session_id(), epoch=5), Close(session=session_id())):
                    await previous.send(command)
                assert await ask(previous, Ping(nonce=1)) == Pong(nonce=1)
                await previous.send(hidden_frame(1, torch.zeros(1, HIDDEN)))
                assert isinstance(await soon(client.receive()), Result)
            else:
                assert isinstance(await ask(previous, Probe(session=session_id())), Progress)
                await previous.send(Close(session=session_id()))
                await eventually(lambda: peer.idle)
        await client.send(Close(session=session_id()))
        await eventually(lambda: peer.idle)


async def test_another_peer_before_is_named_by_the_client(upper: Span, tiny: Checkpoint) -> None:
    one, other = new_member(), new_member()
    async with (
        Peer(upper, tiny.fingerprint) as peer,
        dialed(peer.server) as client,
        dialed(peer.server, me=one) as first,
        dialed(peer.server, me=other) as second,
    ):
        message = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=one.peer_id)
        assert isinstance(await ask(client, message), Opened)
        frames = [hidden_frame(n, torch.zeros(1, HIDDEN), root=n - 1) for n in range(1, 6)]
        await first.send(frames[0])
        assert isinstance(await soon(client.receive()), Result)
        assert unknown(await ask(second, frames[1]))
        both = (one.peer_id, other.peer_id)
        assert await ask(client, AcceptFrom(session=session_id(), speakers=both)) == Accepting(
            session=session_id(), speakers=both
        )
        for link, frame in ((second, frames[1]), (first, frames[2])):
            await link.send(frame)
            assert isinstance(await soon(client.receive()), Result)
        last = (other.peer_id,)
        assert await ask(client, AcceptFrom(session=session_id(), speakers=last)) == Accepting(
            session=session_id(), speakers=last
        )
        assert unknown(await ask(first, frames[3]))
        assert isinstance(await ask(client, frames[3]), Result), "the client itself always may"
        await client.send(Close(session=session_id()))
        await eventually(lambda: peer.idle)


async def test_the_same_peer_over_another_link_is_the_same_speaker(
    upper: Span, tiny: Checkpoint
) -> None:
    before = new_member()
    async with Peer(upper, tiny.fingerprint) as peer, dialed(peer.server) as client:
        message = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=before.peer_id)
        assert isinstance(await ask(client, message), Opened)
        for n in (1, 2):
            async with dialed(peer.server, me=before) as link:
                await link.send(hidden_frame(n, torch.zeros(1, HIDDEN), root=n - 1))
                assert isinstance(await soon(client.receive()), Result)
        await client.send(Close(session=session_id()))
        await eventually(lambda: peer.idle)
