"""Sessions that answer candidates: what a peer tells, and what it refuses."""

from collections.abc import AsyncIterator

import pytest
import torch

from helpers.loopback import Peer, SharedHead, ask, dialed, opening, session_id, tokens_frame
from helpers.models import LAYERS, VOCAB
from swarm.decoding.candidates import choose_candidates
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.links.link import Link
from swarm.wire.candidates import HeadTerms
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    ChangeTerms,
    Fault,
    Opened,
    Refine,
    Refined,
    Result,
    TermsChanged,
)

TOKENS = (5, 6, 7, 8)
TERMS = HeadTerms(count=16, temperature=0.8, seed=3)
PLAIN = HeadTerms(count=16)


@pytest.fixture(scope="module")
def head(tiny: Checkpoint) -> SharedHead:
    return SharedHead(Head.load(tiny))


@pytest.fixture(scope="module")
def whole(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@pytest.fixture
async def peer(tiny: Checkpoint, whole: Span, head: SharedHead) -> AsyncIterator[Peer]:
    async with Peer(whole, tiny.fingerprint, head=head) as served:
        yield served


@pytest.fixture
async def link(peer: Peer) -> AsyncIterator[Link]:
    async with dialed(peer.server) as to_peer:
        yield to_peer


def logits_of(whole: Span, head: SharedHead) -> torch.Tensor:
    return head.logits(
        whole.forward([Work.behind(whole.new_cache(), torch.tensor(TOKENS))], 0, LAYERS)[0]
    )


async def test_candidates_are_chosen_for_the_places_in_the_text(
    peer: Peer, link: Link, whole: Span, head: SharedHead
) -> None:
    opened = await ask(link, opening(peer.fingerprint, 0, LAYERS, head=TERMS))
    assert isinstance(opened, Opened)
    result = await ask(link, tokens_frame(1, TOKENS, tail=2))
    assert isinstance(result, Result)
    assert result.hidden is None
    expected = choose_candidates(logits_of(whole, head)[-2:], [3, 4], TERMS)
    assert result.candidates is not None
    assert result.candidates.counts == expected.counts
    assert result.candidates.tokens == expected.tokens
    # where nothing is asked, nothing is told
    more = await ask(link, tokens_frame(5, (9,), tail=0))
    assert isinstance(more, Result)
    assert more.tail == 0


async def test_terms_change_between_two_texts(
    peer: Peer, link: Link, whole: Span, head: SharedHead
) -> None:
    await ask(link, opening(peer.fingerprint, 0, LAYERS, head=TERMS))
    changed = await ask(link, ChangeTerms(session=session_id(), head=PLAIN))
    assert isinstance(changed, TermsChanged)
    result = await ask(link, tokens_frame(1, TOKENS, tail=1))
    assert isinstance(result, Result)
    assert result.candidates is not None
    expected = choose_candidates(logits_of(whole, head)[-1:], [4], PLAIN)
    assert result.candidates.tokens == expected.tokens


async def test_more_is_told_of_a_prediction(
    peer: Peer, link: Link, whole: Span, head: SharedHead
) -> None:
    await ask(link, opening(peer.fingerprint, 0, LAYERS, head=PLAIN))
    await ask(link, tokens_frame(1, TOKENS, tail=1))
    logits = logits_of(whole, head)
    for serial in (2, len(TOKENS)):
        more = await ask(link, Refine(session=session_id(), serial=serial, count=32))
        assert isinstance(more, Refined)
        fuller = HeadTerms(count=32)
        expected = choose_candidates(logits[serial - 1 : serial], [serial], fuller)
        assert more.candidates.tokens == expected.tokens
    whole_row = await ask(link, Refine(session=session_id(), serial=3, count=0))
    assert isinstance(whole_row, Refined)
    assert whole_row.candidates.counts == (VOCAB,)


async def test_a_peer_without_a_head_refuses(tiny: Checkpoint, whole: Span) -> None:
    async with Peer(whole, tiny.fingerprint) as peer, dialed(peer.server) as link:
        refused = await ask(link, opening(tiny.fingerprint, 0, LAYERS, head=PLAIN))
        assert isinstance(refused, Fault)
        assert refused.code is FaultCode.WRONG_LAYERS


async def test_a_session_that_does_not_end_the_model_gets_none(peer: Peer, link: Link) -> None:
    refused = await ask(link, opening(peer.fingerprint, 0, LAYERS - 1, head=PLAIN))
    assert isinstance(refused, Fault)
    assert refused.code is FaultCode.WRONG_LAYERS


@pytest.mark.parametrize(
    "message",
    [
        Refine(session=session_id(), serial=3, count=0),
        ChangeTerms(session=session_id(), head=PLAIN),
    ],
    ids=["refine", "change terms"],
)
async def test_sessions_for_hidden_states_tell_no_candidates(
    message: Refine | ChangeTerms, peer: Peer, link: Link
) -> None:
    await ask(link, opening(peer.fingerprint, 0, LAYERS))
    refused = await ask(link, message)
    assert isinstance(refused, Fault)
    assert refused.code is FaultCode.BAD_MESSAGE


async def test_what_is_not_held_is_not_refined(peer: Peer, link: Link) -> None:
    await ask(link, opening(peer.fingerprint, 0, LAYERS, head=PLAIN))
    await ask(link, tokens_frame(1, TOKENS, tail=1))
    refused = await ask(link, Refine(session=session_id(), serial=99, count=0))
    assert isinstance(refused, Fault)
    assert refused.code is FaultCode.BAD_MESSAGE


async def test_where_outputs_cannot_be_kept_no_candidates_are_promised(
    tiny: Checkpoint, whole: Span, head: SharedHead
) -> None:
    async with (
        Peer(whole, tiny.fingerprint, history_bytes=0, head=head) as peer,
        dialed(peer.server) as link,
    ):
        refused = await ask(link, opening(tiny.fingerprint, 0, LAYERS, head=PLAIN))
        assert isinstance(refused, Fault)
        assert refused.code is FaultCode.BUSY
