"""Clients without a head: the last peer tells candidates, and the texts stay the same."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers.liars import FEW, banned
from helpers.loopback import SharedHead, soon
from helpers.models import LAYERS
from helpers.strikes import killing
from helpers.swarm_in_process import NEW, PROMPT, STAGES, Material, Swarm, swarm_of
from peers.compute import scheduler
from swarm.audit.guard import Guard
from swarm.audit.tolerance import Tolerance
from swarm.chain import choice, protocol
from swarm.chain import terms as chain_terms
from swarm.chain.session import ChainSession
from swarm.client import generation
from swarm.client.scoring import Scorer
from swarm.client.sequence import TextSequence
from swarm.decoding.candidates import CandidateRow, choose_candidates
from swarm.errors import MissingLayers, NeedsHead, SwarmIncomplete
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.outputs import Generation
from swarm.wire.candidates import Candidates, HeadTerms

SAMPLED = {"temperature": 0.7, "seed": 5}
# Relaxed texts depend on what is drafted: here by one source, and not on how fast that is.
WINDOWS = {"window": 4, "depth": 1, "lookup": False}
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"window": 0},
    "greedy": {},
    "window": {"depth": 1},
    "sampled": SAMPLED,
    "warm": {"temperature": 1.0, "seed": 7},
    "penalties": {**SAMPLED, "presence_penalty": 1.0, "frequency_penalty": 0.5, "min_p": 0.02},
    "top k": {**SAMPLED, "top_k": 20},
    "top p": {**SAMPLED, "top_p": 0.9},
    "penalty": {"repetition_penalty": 1.3},
    "sampled with a penalty": {**SAMPLED, "repetition_penalty": 1.2},
    "rewards": {**SAMPLED, "repetition_penalty": 0.8},
    "biases": {**SAMPLED, "logit_bias": {2: -100.0, 5: 3.0, 9: -4.0}},
    "adaptive": {**WINDOWS, "verify": "adaptive"},
    "sampled adaptively": {**WINDOWS, **SAMPLED, "verify": "adaptive:tau=2"},
    "near ties": {**WINDOWS, "verify": "near_tie"},
}


@pytest.fixture
def make_without(material: Material) -> Callable[[], Swarm]:
    """Return what makes swarms whose clients have no head, and have not seen any answers yet."""
    models = replace(material.without_head.models, guard=Guard())
    return lambda: Swarm(replace(material, models=models))


async def written(make: Callable[[], Swarm], **options: Any) -> Generation:
    async with swarm_of(make, *STAGES) as swarm:
        return await soon(swarm.write(**options))


async def test_texts_are_those_of_a_client_with_a_head(
    make: Callable[[], Swarm], make_without: Callable[[], Swarm]
) -> None:
    async with swarm_of(make, *STAGES) as having, swarm_of(make_without, *STAGES) as lacking:
        for name, options in REQUESTS.items():
            local = await soon(having.write(max_new_tokens=NEW // 2, **options))
            peer = await soon(lacking.write(max_new_tokens=NEW // 2, **options))
            assert peer.token_ids == local.token_ids, name
            assert [each.key for each in peer.pieces] == [each.key for each in local.pieces], name
            devices = local.stats.compute.device, peer.stats.compute.device
            assert devices == ("cpu", None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {**WINDOWS, "verify": "adaptive"},
        {"logprobs": 3},
        {"logprobs": 3, "repetition_penalty": 1.3},
    ],
    ids=str,
)
async def test_what_few_candidates_leave_open_is_asked_for(
    options: dict[str, Any],
    make: Callable[[], Swarm],
    make_without: Callable[[], Swarm],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight candidates of a flat distribution, two of them chosen with noise."""
    asked: list[int] = []
    refined = protocol.ChainProtocol.refined

    def counted(self: Any, message: Any, serial: int, count: int, told: Any) -> Any:
        asked.append(count)
        return refined(self, message, serial, count, told)

    monkeypatch.setattr(protocol.ChainProtocol, "refined", counted)
    monkeypatch.setattr(generation, "CANDIDATES", 8)
    options = {"temperature": 1.5, "top_p": 0.95, "seed": 3, **options}
    local = await written(make, **options)
    peer = await written(make_without, **options)
    assert set(asked) >= {256}
    assert peer.token_ids == local.token_ids
    for one, other in zip(peer.pieces, local.pieces, strict=True):
        if one.logprob is not None:
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [each.token_id for each in one.likely] == [
                each.token_id for each in other.likely
            ]


async def test_the_last_peer_is_replaced_in_the_middle_of_a_text(
    make_without: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make_without, *STAGES, STAGES[-1]) as swarm:
        text = await soon(swarm.write(killing(len(STAGES) - 1)))
        assert text.token_ids == expected
        assert len(text.stats.failovers) == 1


async def test_what_was_decided_before_the_last_peer_failed_is_told(
    make_without: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for more of a prediction, and ends then: the tokens before that one count."""
    monkeypatch.setattr(generation, "CANDIDATES", 8)
    options = {**WINDOWS, "temperature": 1.5, "top_p": 0.95, "seed": 3}
    whole = await written(make_without, **options)
    decided: list[tuple[int, int]] = []  # tokens in all, and by the answer that is judged
    decide, refine = TextSequence.decide_told, ChainSession.refine

    def noted(self: TextSequence, *told: Any) -> None:
        decide(self, *told)
        decided.append((len(self.decoder.tokens) - len(PROMPT), len(self._decisions)))

    monkeypatch.setattr(TextSequence, "decide_told", noted)
    async with swarm_of(make_without, *STAGES) as swarm:

        async def fails(self: ChainSession, *asked: Any) -> CandidateRow:
            if decided[-1][1] and len(swarm.up) == len(STAGES):
                await swarm.up.pop().die()
            return await refine(self, *asked)

        monkeypatch.setattr(ChainSession, "refine", fails)
        said: list[int] = []

        async def listen() -> None:
            async for piece in swarm.stream(**options, patience_s=0.0):
                said.append(piece.token_id)

        with pytest.raises(SwarmIncomplete) as caught:
            await soon(listen())
    assert len(said) == decided[-1][0]
    assert caught.value.generation is not None
    assert caught.value.generation.token_ids == tuple(said) == whole.token_ids[: len(said)]
    assert caught.value.generation.stats.new_tokens == len(said)


async def test_a_peer_with_a_head_stands_by_for_the_last_one(
    make_without: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    async with swarm_of(make_without, *STAGES, STAGES[-1]) as swarm:
        text = await soon(swarm.write(killing(len(STAGES) - 1), standby=True))
        assert text.token_ids == expected


async def test_a_kept_session_goes_on_with_another_seed(make_without: Callable[[], Swarm]) -> None:
    async with swarm_of(make_without, *STAGES) as swarm:
        first = await soon(swarm.write(keep=True, temperature=1.0, seed=1))
        prompt = [*PROMPT, *first.token_ids, 11, 12]
        options = {"prompt": prompt, "temperature": 0.8, "seed": 2}
        second = await soon(swarm.write(**options, keep=True))
        alone = await soon(swarm.write(**options))
        assert second.stats.cached_tokens == len(PROMPT) + NEW - 1
        assert second.token_ids == alone.token_ids


async def test_chains_end_at_peers_that_hold_the_head(
    make_without: Callable[[], Swarm], material: Material
) -> None:
    async with swarm_of(make_without) as swarm:
        await swarm.add(*STAGES)
        lacking = swarm.up[-1]
        lacking.scheduler.head = None
        with pytest.raises(MissingLayers, match=r"holds its LM head.* --head"):
            await soon(swarm.write())
        holding = await swarm.join(material.spans[3, 4])
        swarm.survey_anew()
        text = await soon(swarm.write())
        assert text.route[-1].peer_id == holding.id
        assert lacking.id not in {stop.peer_id for stop in text.route}


@pytest.mark.parametrize(
    "options", [{"logits": True}, {"hidden_states": True}, {"verify": "rejection"}], ids=str
)
async def test_what_needs_a_head_of_ones_own_is_refused_at_once(
    options: dict[str, Any], make_without: Callable[[], Swarm]
) -> None:
    async with swarm_of(make_without) as swarm:
        with pytest.raises(NeedsHead, match="--head local"):
            swarm.stream(**options)
        with pytest.raises(NeedsHead):
            await Scorer(swarm._models, swarm._threads, swarm.router).read(PROMPT)


def shifted(told: Candidates, terms: HeadTerms) -> Candidates:
    return told.model_copy(update={"log_sums": bytes(len(told.log_sums))})


def unsorted(told: Candidates, terms: HeadTerms) -> Candidates:
    return told.model_copy(update={"logits": told.logits[4:] + told.logits[:4]})


def twice(told: Candidates, terms: HeadTerms) -> Candidates:
    return told.model_copy(update={"tokens": told.tokens[:4] * (len(told.tokens) // 4)})


def beyond(told: Candidates, terms: HeadTerms) -> Candidates:
    return told.model_copy(update={"tokens": b"\xff\xff\0\0" + told.tokens[4:]})


def not_finite(told: Candidates, terms: HeadTerms) -> Candidates:
    return told.model_copy(update={"logits": b"\0\0\xc0\x7f" + told.logits[4:]})


@pytest.mark.threat("broken-head")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("broken", [shifted, unsorted, twice, beyond, not_finite])
async def test_what_cannot_be_an_answer_of_a_head_is_not_taken_for_one(
    broken: Callable[[Candidates, HeadTerms], Candidates],
    defended: bool,
    make_without: Callable[[], Swarm],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lie(logits: torch.Tensor, positions: Any, terms: HeadTerms) -> Candidates:
        told = choose_candidates(logits, positions, terms)
        return broken(told, terms) if len(positions) == 1 else told

    monkeypatch.setattr(scheduler, "choose_candidates", lie)
    if not defended:
        monkeypatch.setattr(chain_terms, "objection", lambda *_: None)
        monkeypatch.setattr(chain_terms, "contradiction", lambda *_: None)
    async with swarm_of(make_without, *STAGES) as swarm:
        last = swarm.up[-1].id
        writing = soon(swarm.write(window=0, patience_s=0.0, logprobs=1))
        if defended:
            with pytest.raises(SwarmIncomplete):
                await writing
            assert last in swarm.router.ledger.suspects
        else:
            with contextlib.suppress(Exception):  # whatever comes of it
                await writing
            assert last not in swarm.router.ledger.suspects


@pytest.mark.threat("echoed-drafts")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_peer_that_always_agrees_with_the_draft_is_banned(
    defended: bool,
    make_without: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It serves the draft model in place of the target, all layers and the head."""
    whole = (0, LAYERS)
    monkeypatch.setattr(choice, "STICKY", 1e9)
    if not defended:
        monkeypatch.setattr(Tolerance, "holds", lambda *_: True)
    draft = Checkpoint.open(str(material.draft))
    async with swarm_of(make_without) as swarm:
        liar = await swarm.join(Span.load(draft, *whole), SharedHead(Head.load(draft)))
        await swarm.router.chain()
        await swarm.add(whole, whole)
        swarm.survey_anew()
        async with swarm.audits() as audits:
            draft_alone = {"lookup": False, "learn": False}
            text = await soon(swarm.write(window=3, depth=1, max_new_tokens=FEW, **draft_alone))
            await soon(audits.settle())
            assert text.stats.draft_acceptance_rate == 1.0
            assert text.stats.loops < 20, "the windows in which it is found out"
            assert audits.audits.texts == 1
            assert banned(swarm) == ([liar.id] if defended else [])
            await soon(swarm.write(window=0, max_new_tokens=FEW))
            assert audits.audits.caught == ((liar.id,) if defended else ())


async def test_honest_heads_agree(make_without: Callable[[], Swarm]) -> None:
    async with swarm_of(make_without, *STAGES, *STAGES) as swarm, swarm.audits() as audits:
        for options in ({}, {"temperature": 1.0, "seed": 3}):
            await soon(swarm.write(**options))
            await soon(audits.settle())
        assert (audits.audits.texts, audits.audits.disagreements) == (2, 0)
        assert audits.audits.failures == {}
