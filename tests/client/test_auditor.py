"""Audits over real peers that are honest, and audits that cannot be done."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from helpers.liars import FEW, LENGTHS, ROOM, STAGES, prompt_of, write
from helpers.loopback import soon
from helpers.swarm_in_process import PROMPT, Material, Strike, Swarm, swarm_of
from swarm.audit.answers import Answers, Incomparable
from swarm.audit.evidence import Evidence
from swarm.audit.tolerance import HALF, tolerance
from swarm.client import rerun
from swarm.client.auditor import MAX_WAITING
from swarm.client.generation import GenerationStream
from swarm.outputs import Audits
from swarm.routing.chain import Stage
from swarm.util.tasks import end

pytestmark = pytest.mark.usefixtures("chains_stay")


async def test_honest_peers_agree(make_fresh: Callable[[], Swarm]) -> None:
    async with swarm_of(make_fresh, *STAGES, *STAGES, *STAGES) as swarm, swarm.audits() as audits:
        for way in ({"window": 0}, {"window": 4, "depth": 1}, {}):
            await write(swarm, **way)
        assert (audits.audits.texts, audits.audits.disagreements) == (3, 0)
        assert set(swarm.router.ledger.clean) == {
            link.peer_id for link in await swarm.router.chain()
        }
        assert 0 < audits.audits.token_layers <= audits.audits.generated_token_layers


@pytest.mark.parametrize("tokens", LENGTHS)
async def test_honest_peers_agree_on_every_turn_of_a_talk_and_after_failovers(
    tokens: int, roomy: Material
) -> None:
    """Long prompts, kept sessions, drafts, and peers that die in the first text and in the
    second."""
    async with swarm_of(lambda: Swarm(roomy)) as swarm, swarm.audits() as audits:
        await swarm.add(*STAGES, *STAGES, *STAGES, *STAGES, **ROOM)
        prompt = prompt_of(tokens)
        for strikes in (1, 0):
            text = await soon(
                swarm.write(kill(strikes), 6, prompt=prompt, keep=True, max_new_tokens=FEW)
            )
            prompt = [*prompt, *text.token_ids, 5, 6, 7]
            assert text.stats.failovers
        assert text.stats.cached_tokens
        await soon(audits.settle())
        assert (audits.audits.texts, audits.audits.disagreements, audits.audits.failures) == (
            2,
            0,
            {},
        )
        assert not swarm.router.ledger.suspects


def kill(stage: int) -> Strike:
    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        peer = swarm.serving(stream, stage)
        swarm.up.remove(peer)
        await peer.die()

    return strike


@dataclass
class Witness:
    """An auditor that only looks at what it is offered."""

    seen: list[Evidence] = field(default_factory=list)
    audits: Audits = field(default_factory=Audits)

    def offer(self, evidence: Evidence, _: int) -> None:
        self.seen.append(evidence)


async def test_whose_work_a_text_rests_on_is_known_in_the_next_turn_too(
    make_fresh: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the peers behind it hold was computed from what it said, and in its dtype: honest ones
    must not be suspected for it, nor be measured by what two chains in float32 keep to."""
    async with swarm_of(make_fresh, *STAGES) as swarm:
        record, coarse = swarm._record, swarm.up[0]
        monkeypatch.setattr(
            swarm,
            "_record",
            lambda peer: (
                record(peer).model_copy(update={"dtype": "bfloat16"})
                if peer is coarse
                else record(peer)
            ),
        )
        await swarm.router.chain()
        await swarm.add(*STAGES)
        swarm.survey_anew()
        witness = swarm.auditor = Witness()  # type: ignore[assignment]
        text = await soon(swarm.write(kill(0), 6, keep=True, max_new_tokens=FEW))
        await soon(swarm.write(prompt=[*PROMPT, *text.token_ids, 5], keep=True, max_new_tokens=FEW))
        for evidence in witness.seen:
            assert (evidence.gone, evidence.dtypes) == ({coarse.id}, {"float32", "bfloat16"})
            assert tolerance(evidence.dtypes, experts=False) == HALF
        assert len(witness.seen) == 2


async def test_an_audit_that_comes_to_nothing_is_told_with_its_reason(
    make_fresh: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with swarm_of(make_fresh, *STAGES) as swarm, swarm.audits() as audits:
        await write(swarm)
        assert audits.audits.failures == {"no_other_peers": 1}
        await swarm.add(*STAGES)
        swarm.survey_anew()
        with monkeypatch.context() as patch:
            patch.setattr(rerun, "RUN_TIMEOUT_S", 0.0)
            patch.setattr(rerun, "WINDOW_TIMEOUT_S", 0.0)
            await write(swarm)
            patch.setattr(rerun, "RUN_TIMEOUT_S", 120.0)
            patch.setattr(swarm.up[-1].scheduler, "compute", fails)
            await write(swarm)
            patch.undo()
            patch.setattr(Answers, "distances", unlike)
            await write(swarm)
        assert audits.audits.failures == {
            "no_other_peers": 1,
            "too_slow": 1,
            "peers_failed": 1,
            "internal": 1,
        }
        assert (audits.audits.texts, audits.audits.waiting, swarm.router.ledger.suspects) == (
            0,
            0,
            (),
        )


async def fails(_: object) -> None:
    raise ArithmeticError


def unlike(*_: object) -> None:
    raise Incomparable("rows of different texts")


async def test_texts_that_wait_are_told_and_those_that_nobody_can_audit_any_more(
    make_fresh: Callable[[], Swarm],
) -> None:
    async with swarm_of(make_fresh, *STAGES, *STAGES) as swarm:
        async with swarm.audits():
            pass  # from here on nobody audits
        for _ in range(MAX_WAITING + 2):
            await soon(swarm.write(window=0, max_new_tokens=2))
        assert swarm.auditor is not None
        told = swarm.auditor.audits
        assert (told.texts, told.waiting, told.failures) == (
            0,
            MAX_WAITING,
            {"too_many_waiting": 2},
        )
        stream = swarm.stream(window=0, max_new_tokens=2)
        async for _ in stream:
            pass
        first, second = (swarm.serving(stream, stage) for stage in (0, 1))
        swarm.health.ban(first.id)
        auditing = asyncio.create_task(swarm.auditor.run())
        await soon(swarm.auditor.settle())
        told = swarm.auditor.audits
        assert (told.waiting, told.failures["peer_banned"]) == (0, MAX_WAITING)
        swarm.health._bans.clear()
        swarm.up.remove(second)
        await second.die()
        swarm.auditor.offer(evidence_of(stream), 7)
        await soon(swarm.auditor.settle())
        assert swarm.auditor.audits.failures["peers_left"] == 1
        assert (swarm.auditor.audits.texts, swarm.router.ledger.suspects) == (0, ())
        await end(auditing)


def evidence_of(stream: GenerationStream) -> Evidence:
    """Of one row, which nobody can compare."""
    stages = tuple(Stage(stop.peer_id, *stop.layers) for stop in stream.route)
    return Evidence(
        (5, 6), 1, (0,), torch.ones(1, 32), 1, stages, frozenset(), frozenset({"float32"}), 64
    )


async def test_an_auditor_that_fails_is_no_liar(make_fresh: Callable[[], Swarm]) -> None:
    async with swarm_of(make_fresh, *STAGES) as swarm:
        await swarm.router.chain()
        await swarm.add(*STAGES, cache_tokens=10)  # too small for any session
        swarm.survey_anew()
        async with swarm.audits() as audits:
            await write(swarm)
            assert (audits.audits.texts, swarm.router.ledger.suspects) == (0, ())
            assert audits.audits.failures == {"busy": 1}


async def test_without_a_rate_nothing_is_audited(make_fresh: Callable[[], Swarm]) -> None:
    async with swarm_of(make_fresh, *STAGES, *STAGES) as swarm, swarm.audits(rate=0.0) as audits:
        await write(swarm)
        assert audits.audits.token_layers == 0
        assert audits.audits.generated_token_layers > 0
