"""Sessions that tell outputs of layers: which ones, when, and to whom."""

from collections.abc import AsyncIterator

import pytest
import torch

from helpers.loopback import Peer, ask, dialed, opening, session_id, tokens_frame
from helpers.models import LAYERS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.taps import Taps
from swarm.model.work import Work
from swarm.network.links.link import Link
from swarm.wire.faults import FaultCode
from swarm.wire.messages import ChangeTerms, Fault, Opened, Result, Tapped, TermsChanged
from swarm.wire.taps import TapTerms

TOKENS = (5, 6, 7, 8)
TERMS = TapTerms(layers=(0, 2), float8=False)


@pytest.fixture
async def peer(tiny: Checkpoint, spans: tuple[Span, Span, Span]) -> AsyncIterator[Peer]:
    async with Peer(spans[2], tiny.fingerprint) as served:
        yield served


@pytest.fixture
async def link(peer: Peer) -> AsyncIterator[Link]:
    async with dialed(peer.server) as to_peer:
        yield to_peer


def expected(span: Span) -> torch.Tensor:
    """Return the outputs of the tapped layers at all tokens, ``[tokens, taps, hidden]``."""
    taps = Taps(TERMS, len(TOKENS))
    work = Work.behind(span.new_cache(), torch.tensor(TOKENS))
    span.forward([Work(work.cache, work.inputs, work.placement, taps)])
    return taps.outputs[0].unpack()


async def test_outputs_come_before_the_answer_at_the_tokens_that_are_answered(
    peer: Peer, link: Link, spans: tuple[Span, Span, Span]
) -> None:
    opened = await ask(link, opening(peer.fingerprint, 0, LAYERS, taps=TERMS))
    assert opened == Opened(session=session_id(), taps=True, forks=True)
    tapped = await ask(link, tokens_frame(1, TOKENS, tail=2))
    assert isinstance(tapped, Tapped)
    assert (tapped.first, tapped.layers) == (3, TERMS.layers)
    torch.testing.assert_close(tapped.outputs.unpack(), expected(spans[2])[-2:])
    assert isinstance(await link.receive(), Result)
    # where nothing is answered, nothing is told
    assert isinstance(await ask(link, tokens_frame(5, (9,), tail=0)), Result)


async def test_terms_change_between_two_texts(peer: Peer, link: Link) -> None:
    await ask(link, opening(peer.fingerprint, 0, LAYERS))
    assert isinstance(await ask(link, tokens_frame(1, TOKENS, tail=1)), Result)
    begin = ChangeTerms(session=session_id(), taps=TapTerms(layers=(3,)))
    assert isinstance(await ask(link, begin), TermsChanged)
    tapped = await ask(link, tokens_frame(5, (9,), tail=1))
    assert isinstance(tapped, Tapped)
    assert tapped.layers == (3,)
    assert tapped.outputs.dtype == "float8_e4m3fn"
    assert isinstance(await link.receive(), Result)
    assert isinstance(await ask(link, ChangeTerms(session=session_id())), TermsChanged)
    assert isinstance(await ask(link, tokens_frame(6, (9,), tail=1)), Result)


async def test_taps_of_other_layers_are_refused(peer: Peer, link: Link) -> None:
    await ask(link, opening(peer.fingerprint, 0, LAYERS - 1))
    beyond = TapTerms(layers=(LAYERS - 1,))
    refused = await ask(link, ChangeTerms(session=session_id(), taps=beyond))
    assert isinstance(refused, Fault)
    assert refused.code is FaultCode.BAD_MESSAGE


async def test_a_peer_in_the_middle_tells_the_client_and_not_the_next_peer(
    tiny: Checkpoint, spans: tuple[Span, Span, Span]
) -> None:
    lower, upper, whole = spans
    async with (
        Peer(lower, tiny.fingerprint) as first,
        Peer(upper, tiny.fingerprint) as second,
        dialed(first.server) as to_first,
        dialed(second.server) as to_second,
    ):
        middle = lower.last
        previous = first.server.identity.peer_id
        await ask(
            to_second,
            opening(tiny.fingerprint, middle, LAYERS, previous=previous, taps=TERMS.within(2, 4)),
        )
        await ask(
            to_first,
            opening(
                tiny.fingerprint, 0, middle, next=second.server.hop, taps=TERMS.within(0, middle)
            ),
        )
        await to_first.send(tokens_frame(1, TOKENS, tail=4))
        lower_told, upper_told = await to_first.receive(), await to_second.receive()
        assert isinstance(lower_told, Tapped)
        assert isinstance(upper_told, Tapped)
        together = torch.cat([each.outputs.unpack() for each in (lower_told, upper_told)], dim=1)
        torch.testing.assert_close(together, expected(whole))
        assert isinstance(await to_second.receive(), Result)


async def test_on_an_older_link_nothing_is_asked_and_nothing_told(peer: Peer, link: Link) -> None:
    link.version = 6
    for served in peer.server.links:
        served.version = 6
    opened = await ask(link, opening(peer.fingerprint, 0, LAYERS, taps=TERMS))
    assert opened == Opened(session=session_id())
    assert isinstance(await ask(link, tokens_frame(1, TOKENS, tail=2)), Result)
