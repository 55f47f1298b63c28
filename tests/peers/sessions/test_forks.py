"""Sessions that begin with a copy of what another one holds: exact, whose they are, and bounded."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.lone_peer import MIDDLE, close_to, expected, lone_peer, refused, reroute
from helpers.loopback import (
    Peer,
    SharedHead,
    WatchedSpan,
    ask,
    dialed,
    eventually,
    opening,
    session_id,
    soon,
    tiny_checkpoint,
    tokens_frame,
)
from helpers.models import ARCHITECTURES, LAYERS, Architecture
from helpers.recurrent_models import RECURRENT
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.network.links.link import Link
from swarm.wire.candidates import HeadTerms
from swarm.wire.faults import FaultCode
from swarm.wire.forks import Fork
from swarm.wire.messages import (
    Cancel,
    Close,
    Fault,
    Frame,
    Opened,
    Refine,
    Refined,
    Result,
    WireMessage,
)

SOURCE, OTHER, THIRD = session_id(), session_id(1), session_id(2)
# Token 5 is followed by 21 and 22; 20 and 31 are branches that lost.
PROMPT = (11, 12, 13, 14, 15)
TREE = tokens_frame(6, (20, 21, 22, 31), root=5, parents=(1, 2, 1, 2))
TEXT = (*PROMPT, 21, 22)
ROOT = 8  # the serial of token 22


def fork(count: int, root: int = ROOT, source: bytes = SOURCE) -> Fork:
    return Fork(session=source, root=root, count=count)


async def begin(link: Link, fingerprint: str, **fields: Any) -> None:
    """Open a session and send it the text, branches and all; then let it rest."""
    assert isinstance(await ask(link, opening(fingerprint, 0, LAYERS, **fields)), Opened)
    assert isinstance(await ask(link, tokens_frame(1, PROMPT, tail=1)), Result)
    assert isinstance(await ask(link, TREE), Result)
    await link.send(Cancel(session=SOURCE, epoch=1))


async def forked(link: Link, fingerprint: str, **fields: Any) -> WireMessage:
    return await ask(link, opening(fingerprint, 0, LAYERS, **({"session": OTHER} | fields)))


@pytest.fixture
async def served(tiny: Checkpoint, spans: tuple[Span, ...]) -> AsyncIterator[tuple[Peer, Link]]:
    async with lone_peer(spans[2], tiny) as (peer, link):
        yield peer, link


@pytest.mark.parametrize("count", range(1, len(TEXT) + 1))
async def test_it_goes_on_from_any_beginning_as_if_it_had_computed_it(
    count: int, served: tuple[Peer, Link]
) -> None:
    peer, link = served
    await begin(link, peer.fingerprint)
    opened = await forked(link, peer.fingerprint, fork=fork(count))
    assert opened == Opened(session=OTHER, taps=True, forks=True, held=count)
    frame = tokens_frame(count + 1, (40, 41), root=count, session=OTHER)
    close_to(await ask(link, frame), expected(peer.span, TEXT[:count], (40, 41))[-2:])
    # a branch of its own, and a text that goes back
    back = tokens_frame(
        count + 3, (50, 51), root=count, session=OTHER, epoch=1, parents=(3, 4), tail=1
    )
    close_to(await ask(link, back), expected(peer.span, TEXT[:count], (51,))[-1:])
    # the other one is as it was
    close_to(
        await ask(link, tokens_frame(10, (60,), root=ROOT, parents=(2,), epoch=1)),
        expected(peer.span, TEXT, (60,))[-1:],
    )


async def test_several_begin_with_one_at_once_and_one_with_a_fork(
    served: tuple[Peer, Link],
) -> None:
    peer, link = served
    await begin(link, peer.fingerprint)
    for session in (OTHER, THIRD):
        await link.send(opening(peer.fingerprint, 0, LAYERS, session=session, fork=fork(6)))
    assert {(await link.receive()).session for _ in range(2)} == {OTHER, THIRD}  # type: ignore
    for session, token in ((OTHER, 40), (THIRD, 41)):
        answer = await ask(link, tokens_frame(7, (token,), root=6, session=session))
        close_to(answer, expected(peer.span, TEXT[:6], (token,))[-1:])
    last = session_id(3)
    again = fork(7, 7, OTHER)
    assert isinstance(await forked(link, peer.fingerprint, session=last, fork=again), Opened)
    answer = await ask(link, tokens_frame(8, (42,), root=7, session=last))
    close_to(answer, expected(peer.span, TEXT[:6], (40, 42))[-1:])


async def test_the_source_may_end_and_what_began_with_it_goes_on(
    served: tuple[Peer, Link],
) -> None:
    peer, link = served
    await begin(link, peer.fingerprint)
    assert isinstance(await forked(link, peer.fingerprint, fork=fork(7)), Opened)
    await link.send(Close(session=SOURCE))
    close_to(
        await ask(link, tokens_frame(8, (40,), root=7, session=OTHER)),
        expected(peer.span, TEXT, (40,))[-1:],
    )


async def test_a_text_that_is_being_written_can_be_begun_with(
    tiny: Checkpoint, spans: tuple[Span, ...]
) -> None:
    """The copy waits until what is computed is part of the session, and no longer."""
    watched = WatchedSpan(spans[2])
    async with lone_peer(watched, tiny) as (_, link):  # type: ignore[arg-type]
        await ask(link, opening(tiny.fingerprint, 0, LAYERS))
        await ask(link, tokens_frame(1, PROMPT, tail=1))
        watched.entered.clear()
        watched.go_on.clear()
        await link.send(TREE)
        await eventually(watched.entered.is_set)
        await link.send(opening(tiny.fingerprint, 0, LAYERS, session=OTHER, fork=fork(3, 5)))
        watched.go_on.set()
        answers = [await soon(link.receive()) for _ in range(2)]
        assert {type(each) for each in answers} == {Result, Opened}
        close_to(
            await ask(link, tokens_frame(4, (40,), root=3, session=OTHER)),
            expected(spans[2], TEXT[:3], (40,))[-1:],
        )


async def test_only_its_own_client_may_begin_with_a_session(served: tuple[Peer, Link]) -> None:
    peer, link = served
    await begin(link, peer.fingerprint)
    async with dialed(peer.server) as stranger:
        code = await refused(
            stranger, opening(peer.fingerprint, 0, LAYERS, session=OTHER, fork=fork(3))
        )
        assert code is FaultCode.NO_SESSION
    assert isinstance(await forked(link, peer.fingerprint, fork=fork(3)), Opened)


@pytest.mark.parametrize(
    "asked",
    [
        fork(8),  # more than leads to the root
        fork(7, 6),  # to a branch that lost, which is not as long
        fork(7, 99),
        fork(3, source=THIRD),
        fork(3, source=OTHER),  # with itself
    ],
)
async def test_what_is_not_held_is_refused_and_nothing_is_kept_of_it(
    asked: Fork, served: tuple[Peer, Link]
) -> None:
    peer, link = served
    await begin(link, peer.fingerprint)
    free = peer.budget.free_tokens
    fault = await forked(link, peer.fingerprint, fork=asked)
    assert isinstance(fault, Fault)
    assert fault.code is FaultCode.NO_SESSION
    assert fault.text.endswith("; open one that begins with none")
    assert peer.budget.free_tokens == free
    assert isinstance(await forked(link, peer.fingerprint), Opened)


async def test_layers_differ(served: tuple[Peer, Link]) -> None:
    peer, link = served
    await begin(link, peer.fingerprint)
    other = opening(peer.fingerprint, 0, LAYERS - 1, session=OTHER, fork=fork(3))
    assert await refused(link, other) is FaultCode.BAD_MESSAGE


async def test_a_copy_counts_as_any_session(tiny: Checkpoint, spans: tuple[Span, ...]) -> None:
    async with lone_peer(spans[2], tiny, cache_tokens=100) as (peer, link):
        await begin(link, peer.fingerprint)
        asked = opening(tiny.fingerprint, 0, LAYERS, session=OTHER, fork=fork(3))
        assert await refused(link, asked) is FaultCode.BUSY
        small = await forked(link, tiny.fingerprint, fork=fork(3), max_tokens=36)
        assert isinstance(small, Opened)
        assert peer.budget.free_tokens == 0


async def test_a_client_that_leaves_does_not_wait_for_its_copy(
    tiny: Checkpoint, spans: tuple[Span, ...]
) -> None:
    watched = WatchedSpan(spans[2])
    async with lone_peer(watched, tiny) as (peer, link):  # type: ignore[arg-type]
        await begin(link, peer.fingerprint)
        watched.entered.clear()
        watched.go_on.clear()
        await link.send(tokens_frame(10, (60,), root=ROOT, parents=(2,), epoch=1))
        await eventually(watched.entered.is_set)
        await link.send(opening(tiny.fingerprint, 0, LAYERS, session=OTHER, fork=fork(3)))
        session = peer.handler.sessions[SOURCE]
        await eventually(lambda: len(session._forks) == 1)
        await link.send(Close(session=OTHER))  # given up
        await link.send(opening(tiny.fingerprint, 0, LAYERS, session=THIRD, fork=fork(3)))
        await eventually(lambda: len(session._forks) == 2)
        await link.send(Close(session=SOURCE))
        fault = await soon(link.receive())
        assert isinstance(fault, Fault)
        assert (fault.session, fault.code) == (THIRD, FaultCode.NO_SESSION)
        watched.go_on.set()
        await eventually(lambda: peer.idle)


async def test_predictions_of_it_are_told_in_full(
    tiny: Checkpoint, spans: tuple[Span, ...]
) -> None:
    """The outputs that are kept lie in the same rows as the cache."""
    head, terms = SharedHead(Head.load(tiny)), HeadTerms(count=16)
    async with lone_peer(spans[2], tiny, head=head) as (peer, link):
        await begin(link, peer.fingerprint, head=terms)
        assert isinstance(await forked(link, peer.fingerprint, fork=fork(7), head=terms), Opened)
        result = await ask(link, tokens_frame(8, (40, 41), root=7, session=OTHER))
        assert isinstance(result, Result)
        refined = await ask(link, Refine(session=OTHER, serial=9, count=0))
        assert isinstance(refined, Refined)
        logits = torch.frombuffer(bytearray(refined.candidates.logits), dtype=torch.float32)
        hidden = expected(spans[2], TEXT, (40, 41))[-1:]
        torch.testing.assert_close(logits, head.logits(hidden)[0], rtol=1e-4, atol=1e-4)


async def test_a_peer_that_follows_is_given_all_of_it(
    tiny: Checkpoint, spans: tuple[Span, ...]
) -> None:
    """A peer whose next one is replaced replays the copied outputs as its own."""
    lower, upper, whole = spans
    async with (
        lone_peer(lower, tiny) as (first, to_first),
        lone_peer(upper, tiny) as (second, to_second),
        lone_peer(upper, tiny) as (third, to_third),
    ):
        for session, beginning in ((SOURCE, None), (OTHER, fork(7))):
            of: dict[str, Any] = {"session": session, "fork": beginning}
            behind = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=first.id, **of)
            assert isinstance(await ask(to_second, behind), Opened)
            before = opening(tiny.fingerprint, 0, MIDDLE, next=second.server.hop, **of)
            assert isinstance(await ask(to_first, before), Opened)
            if beginning is None:
                await to_first.send(tokens_frame(1, PROMPT, tail=1))
                assert isinstance(await soon(to_second.receive()), Result)
                await to_first.send(TREE)
                assert isinstance(await soon(to_second.receive()), Result)
        await to_first.send(tokens_frame(8, (40,), root=7, session=OTHER))
        close_to(await soon(to_second.receive()), expected(whole, TEXT, (40,))[-1:])
        joins = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=first.id, epoch=1, session=OTHER)
        assert isinstance(await ask(to_third, joins), Opened)
        await ask(to_first, reroute(third.server.hop, session=OTHER, root=8, replay=0))
        await to_first.send(tokens_frame(9, (41,), root=8, session=OTHER, epoch=1))
        close_to(await soon(to_third.receive()), expected(whole, TEXT, (40, 41))[-1:])


async def test_beside_neighbours_in_one_batch(served: tuple[Peer, Link]) -> None:
    peer, link = served
    await begin(link, peer.fingerprint)
    assert isinstance(await forked(link, peer.fingerprint, fork=fork(6)), Opened)
    frames: list[Frame] = [
        tokens_frame(10, (60,), root=ROOT, parents=(2,), epoch=1),
        tokens_frame(7, (40,), root=6, session=OTHER),
    ]
    for frame in frames:
        await link.send(frame)
    answers = {
        answer.session: answer
        for answer in [await soon(link.receive()) for _ in frames]
        if isinstance(answer, Result)
    }
    close_to(answers[SOURCE], expected(peer.span, TEXT, (60,))[-1:])
    close_to(answers[OTHER], expected(peer.span, TEXT[:6], (40,))[-1:])


@pytest.mark.parametrize("name", ["deepseek_v32", "gemma2"])
async def test_all_that_layers_cache_is_copied(name: str, tmp_path: Path) -> None:
    """Latents, an indexer's keys, and layers that attend to a window of the last tokens."""
    checkpoint = tiny_checkpoint(tmp_path, 256, ARCHITECTURES[name])
    span = Span.load(checkpoint, 0, LAYERS)
    async with lone_peer(span, checkpoint) as (peer, link):
        await begin(link, peer.fingerprint)
        assert isinstance(await forked(link, peer.fingerprint, fork=fork(6)), Opened)
        close_to(
            await ask(link, tokens_frame(7, (40, 41), root=6, session=OTHER)),
            expected(span, TEXT[:6], (40, 41))[-2:],
        )


@pytest.mark.parametrize("architecture", list(RECURRENT.values())[:2], ids=list(RECURRENT)[:2])
async def test_layers_with_states_go_on_where_they_hold_one(
    architecture: Architecture, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint(tmp_path, 256, architecture)
    span = Span.load(checkpoint, 0, LAYERS)
    async with lone_peer(span, checkpoint) as (peer, link):
        opened = await ask(link, opening(peer.fingerprint, 0, LAYERS))
        assert isinstance(opened, Opened)
        assert not opened.forks  # not from anywhere
        for first, tokens in ((1, PROMPT), (6, (21, 22)), (8, (23, 24))):
            frame = tokens_frame(first, tokens, root=first - 1)
            assert isinstance(await ask(link, frame), Result)
        fault = await forked(link, peer.fingerprint, fork=fork(3, 9))
        assert isinstance(fault, Fault)
        assert "states" in fault.text
        for session, count in ((OTHER, 9), (THIRD, 8)):
            opened = await forked(link, peer.fingerprint, session=session, fork=fork(count, 9))
            assert isinstance(opened, Opened)
            answer = await ask(link, tokens_frame(count + 1, (40,), root=count, session=session))
            read = (*PROMPT, 21, 22, 23, 24)[:count]
            close_to(answer, expected(span, read, (40,))[-1:])
