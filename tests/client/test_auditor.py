"""Audits over real peers: whoever computes something else than the model is found, and nobody else
is."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from helpers.loopback import Peer, soon
from helpers.models import VOCAB
from helpers.swarm_in_process import PROMPT, Material, Strike, Swarm, swarm_of
from peers.sessions import downstream, session
from swarm.audit.answers import Answers, Incomparable
from swarm.audit.evidence import Evidence
from swarm.audit.guard import Guard
from swarm.audit.tolerance import HALF, Tolerance, tolerance
from swarm.chain import choice
from swarm.client import rerun
from swarm.client.auditor import MAX_WAITING
from swarm.client.generation import GenerationStream
from swarm.decoding.windows import Window
from swarm.model.span import Span
from swarm.outputs import Audits
from swarm.routing.chain import Stage
from swarm.sim.lies import (
    LyingSpan,
    SkippingSpan,
    cheap_weights,
    noise,
    other_weights,
    small_frames,
    unchanged,
    zeros,
)
from swarm.util.tasks import end
from swarm.wire.tensors import WireTensor

STAGES = [(0, 2), (2, 4)]
# of prompts: of one frame, of several, and such as begin a new one
LENGTHS = (1, 256, 257, 700, 2049)
ROOM = {"cache_tokens": 1 << 14}
# tokens of a text: with the prompt's answer fewer than 20 windows, if each window is one token
FEW = 16

Liar = Callable[[Material, tuple[int, int]], Span]


def saying(lie: Callable, when: Callable = lambda _: True) -> Liar:
    return lambda material, stage: LyingSpan(material.spans[stage], lie, when)


LIARS: dict[str, Liar] = {
    "noise": saying(noise),
    "zeros": saying(zeros),
    "unchanged": saying(unchanged),
    "skipped-layers": lambda material, stage: SkippingSpan(material.spans[stage]),
    "wrong-weights": lambda material, stage: other_weights(material.checkpoint, *stage),
    "cheap-weights": lambda material, stage: cheap_weights(material.checkpoint, *stage),
}


@pytest.fixture
def make(material: Material) -> Callable[[], Swarm]:
    """Swarms whose clients have not seen any answers yet."""
    return lambda: Swarm(replace(material, models=replace(material.models, guard=Guard())))


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A model whose context takes long prompts."""
    return Material.load(tmp_path_factory.mktemp("roomy"), max_positions=4096)


def prompt_of(tokens: int) -> list[int]:
    return random.Random(tokens).choices(range(3, VOCAB), k=tokens)


@pytest.fixture(autouse=True)
def _chains_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "STICKY", 1e9)


async def join_liar(
    swarm: Swarm, material: Material, liar: Liar, stage: tuple[int, int], **options: int
) -> Peer:
    """Let a liar be the one of its stage, in a chain that stays, and honest peers come later: two
    more a stage."""
    lies = await swarm.join(liar(material, stage), **options)
    await swarm.add(next(other for other in STAGES if other != stage), **options)
    await swarm.router.chain()
    await swarm.add(*STAGES, *STAGES, **options)
    swarm.survey_anew()
    return lies


def banned(swarm: Swarm) -> list[str]:
    return [peer.id for peer in swarm.up if peer.id in swarm.health.bans]


async def write(swarm: Swarm, **options: object) -> None:
    await soon(swarm.write(**{"window": 0, "max_new_tokens": FEW, **options}))
    assert swarm.auditor is not None
    await soon(swarm.auditor.settle())


@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("noise", marks=pytest.mark.threat("noise")),
        pytest.param("zeros", marks=pytest.mark.threat("zeros")),
        pytest.param("unchanged", marks=pytest.mark.threat("zeros")),
        pytest.param("skipped-layers", marks=pytest.mark.threat("skipped-layers")),
        pytest.param("wrong-weights", marks=pytest.mark.threat("wrong-weights")),
        pytest.param("cheap-weights", marks=pytest.mark.threat("cheap-weights")),
    ],
)
async def test_a_liar_is_banned_after_its_first_text(
    name: str,
    stage: tuple[int, int],
    defended: bool,
    make: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # another defence, which would come first
    monkeypatch.setattr(Guard, "objection", lambda *_: None)
    if not defended:
        monkeypatch.setattr(Tolerance, "holds", lambda *_: True)
    async with swarm_of(make) as swarm:
        liar = await join_liar(swarm, material, LIARS[name], stage)
        async with swarm.audits() as audits:
            await write(swarm)
            assert audits.audits.texts == 1
            assert banned(swarm) == ([liar.id] if defended else [])
            await write(swarm)
            assert audits.audits.caught == ((liar.id,) if defended else ())


@pytest.mark.threat("two-faced")
@pytest.mark.parametrize("defended", [True, False])
async def test_audits_cannot_be_told_from_texts(
    defended: bool, make: Callable[[], Swarm], material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A liar that is honest to prompts, and to all that looks like them.

    Client and link are the same in all.
    """

    def prefill(tokens: Sequence[int], prompt_tokens: int, _: random.Random) -> list[Window]:
        return [Window(0, 0, 1, tuple(tokens), None, len(tokens) - prompt_tokens + 1, 0)]

    if not defended:
        monkeypatch.setattr(rerun, "windows", prefill)
    async with swarm_of(make) as swarm:
        liar = await join_liar(swarm, material, saying(noise, small_frames), STAGES[0])
        async with swarm.audits() as audits:
            await write(swarm, prompt=[5, 6, 7, 8, 9] * 4)
            assert audits.audits.disagreements == 1
            assert banned(swarm) == ([liar.id] if defended else [])


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("name", [*LIARS, "two-faced"])
async def test_a_liar_is_banned_however_long_the_prompt(
    name: str, tokens: int, roomy: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts travel in chunks of 256 tokens, which are answered, and with nothing."""
    monkeypatch.setattr(Guard, "objection", lambda *_: None)
    liars = {**LIARS, "two-faced": saying(noise, small_frames)}
    stage = STAGES[tokens % 2]
    async with swarm_of(lambda: Swarm(roomy)) as swarm:
        liar = await join_liar(swarm, roomy, liars[name], stage, **ROOM)
        async with swarm.audits() as audits:
            await write(swarm, prompt=prompt_of(tokens), max_new_tokens=FEW)
            assert (audits.audits.texts, audits.audits.disagreements, audits.audits.failures) == (
                1,
                1,
                {},
            )
            assert banned(swarm) == [liar.id]


@pytest.mark.threat("rare-lie")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_liar_that_lies_in_one_frame_of_a_hundred_is_banned(
    defended: bool, make: Callable[[], Swarm], material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used whenever it may be, being the fastest."""
    chance, texts = random.Random(3), 0
    if not defended:
        monkeypatch.setattr(Tolerance, "holds", lambda *_: True)
    monkeypatch.setattr(choice, "STICKY", 1.0)
    async with swarm_of(make) as swarm:
        liar = await join_liar(
            swarm, material, saying(noise, lambda _: chance.random() < 0.01), STAGES[0]
        )
        slow = [peer.id for peer in swarm.up if peer.id != liar.id and peer.span.first == 0]
        monkeypatch.setattr(
            swarm.health, "layer_ms", lambda peer_id: 1e3 if peer_id in slow else 1.0
        )
        async with swarm.audits():
            while not banned(swarm) and texts < (200 if defended else 10):
                await write(swarm, max_new_tokens=64)
                texts += 1
        assert banned(swarm) == ([liar.id] if defended else [])


async def test_honest_peers_agree(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES, *STAGES, *STAGES) as swarm, swarm.audits() as audits:
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
    make: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the peers behind it hold was computed from what it said, and in its dtype: honest ones
    must not be suspected for it, nor be measured by what two chains in float32 keep to."""
    async with swarm_of(make, *STAGES) as swarm:
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
    make: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with swarm_of(make, *STAGES) as swarm, swarm.audits() as audits:
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
    make: Callable[[], Swarm],
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
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


async def test_where_two_disagree_and_there_is_no_third_nobody_is_banned(
    make: Callable[[], Swarm], material: Material
) -> None:
    async with swarm_of(make) as swarm:
        liar = await swarm.join(LIARS["wrong-weights"](material, STAGES[0]))
        await swarm.add(STAGES[1])
        await swarm.router.chain()
        await swarm.add(*STAGES)
        swarm.survey_anew()
        async with swarm.audits() as audits:
            await write(swarm)
            assert audits.audits.disagreements == 1
            assert not swarm.health.bans
            honest = swarm.up[2].id
            assert set(swarm.router.ledger.suspects) == {liar.id, honest}
            await write(swarm)
            worse, _ = swarm.router.ledger.suspects
            assert swarm.router.ledger.worse == (worse,)
            assert worse not in {link.peer_id for link in await swarm.router.chain()}
            assert (audits.audits.texts, audits.audits.disagreements) == (2, 1), (
                "only the other stage is audited"
            )


async def test_an_auditor_that_fails_is_no_liar(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        await swarm.router.chain()
        await swarm.add(*STAGES, cache_tokens=10)  # too small for any session
        swarm.survey_anew()
        async with swarm.audits() as audits:
            await write(swarm)
            assert (audits.audits.texts, swarm.router.ledger.suspects) == (0, ())
            assert audits.audits.failures == {"busy": 1}


async def test_without_a_rate_nothing_is_audited(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm, swarm.audits(rate=0.0) as audits:
        await write(swarm)
        assert audits.audits.token_layers == 0
        assert audits.audits.generated_token_layers > 0


BROKEN = {
    "nan": lambda outputs: outputs * float("nan"),
    "infinite": lambda outputs: outputs * float("inf"),
    "zero": torch.zeros_like,
    "too large": lambda outputs: torch.randn_like(outputs) * 1e6,
    "too small": lambda outputs: torch.randn_like(outputs) * 1e-6,
}
LAST = [(name, STAGES[-1]) for name in BROKEN]
BEFORE = [(name, STAGES[0]) for name in ("nan", "infinite")]  # which the next peer makes no better


@pytest.mark.threat("broken-reply")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize(("name", "stage"), [*LAST, *BEFORE])
async def test_what_cannot_be_an_answer_is_not_taken_for_one(
    name: str,
    stage: tuple[int, int],
    defended: bool,
    make: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken, lying = BROKEN[name], False
    monkeypatch.setattr(
        downstream, "_packed", WireTensor.pack
    )  # peers notice what is not finite themselves, if they want
    monkeypatch.setattr(session, "_fits", lambda *_: True)
    async with swarm_of(make) as swarm:
        liar = await join_liar(
            swarm, material, saying(lambda _, outputs: broken(outputs), lambda _: lying), stage
        )
        options = {"window": 0, "max_new_tokens": 80}
        expected = (await soon(swarm.write(**options))).token_ids
        lying = True
        if not defended:
            monkeypatch.setattr(Guard, "objection", lambda *_: None)
        text = await soon(swarm.write(**options))
        assert (text.token_ids == expected) == defended
        assert (liar.id in swarm.router.ledger.suspects) == defended
