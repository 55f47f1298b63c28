"""Audits over real peers: whoever computes something else than the model is found, and nobody else is."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from pocket import Material, Swarm, swarm_of
from support import Peer, soon

from peers import outlet, session
from swarm import auditor, router
from swarm.audit.guard import Guard
from swarm.audit.tolerance import Tolerance
from swarm.decoding.decoder import Window
from swarm.model.span import Span
from swarm.sim.lies import LyingSpan, SkippingSpan, cheap_weights, noise, other_weights, small_frames, unchanged, zeros
from swarm.wire.tensors import WireTensor

STAGES = [(0, 2), (2, 4)]
FEW = 16  # tokens of a text: with the prompt's answer fewer than 20 windows, if each window is one token

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


@pytest.fixture(autouse=True)
def _chains_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "STICKY", 1e9)


async def join_liar(swarm: Swarm, material: Material, liar: Liar, stage: tuple[int, int]) -> Peer:
    """Let a liar be the one of its stage, in a chain that stays, and honest peers come later: two more a stage."""
    lies = await swarm.join(liar(material, stage))
    await swarm.add(next(other for other in STAGES if other != stage))
    await swarm.router.chain()
    await swarm.add(*STAGES, *STAGES)
    swarm.router._looked_at = float("-inf")
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
    monkeypatch.setattr(Guard, "objection", lambda *_: None)  # another defence, which would come first
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
    """A liar that is honest to prompts, and to all that looks like them. Client and link are the same in all."""

    def prefill(tokens: Sequence[int], prompt_tokens: int, _: random.Random) -> list[Window]:
        return [Window(0, 0, 1, tuple(tokens), None, len(tokens) - prompt_tokens + 1, 0)]

    if not defended:
        monkeypatch.setattr(auditor, "windows", prefill)
    async with swarm_of(make) as swarm:
        liar = await join_liar(swarm, material, saying(noise, small_frames), STAGES[0])
        async with swarm.audits() as audits:
            await write(swarm, prompt=[5, 6, 7, 8, 9] * 4)
            assert audits.audits.disagreements == 1
            assert banned(swarm) == ([liar.id] if defended else [])


@pytest.mark.threat("rare-lie")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_liar_that_lies_in_one_frame_of_a_hundred_is_banned(
    defended: bool, make: Callable[[], Swarm], material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used whenever it may be, being the fastest."""
    chance, texts = random.Random(3), 0
    if not defended:
        monkeypatch.setattr(Tolerance, "holds", lambda *_: True)
    monkeypatch.setattr(router, "STICKY", 1.0)
    async with swarm_of(make) as swarm:
        liar = await join_liar(swarm, material, saying(noise, lambda _: chance.random() < 0.01), STAGES[0])
        slow = [peer.id for peer in swarm.up if peer.id != liar.id and peer.span.first == 0]
        monkeypatch.setattr(swarm.health, "layer_ms", lambda peer_id: 1e3 if peer_id in slow else 1.0)
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
        assert set(swarm.router.ledger.clean) == {link.peer_id for link in await swarm.router.chain()}
        assert 0 < audits.audits.token_layers <= audits.audits.generated_token_layers


async def test_where_two_disagree_and_there_is_no_third_nobody_is_banned(
    make: Callable[[], Swarm], material: Material
) -> None:
    async with swarm_of(make) as swarm:
        liar = await swarm.join(LIARS["wrong-weights"](material, STAGES[0]))
        await swarm.add(STAGES[1])
        await swarm.router.chain()
        await swarm.add(*STAGES)
        swarm.router._looked_at = float("-inf")
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
            assert (audits.audits.texts, audits.audits.disagreements) == (2, 1), "only the other stage is audited"


async def test_an_auditor_that_fails_is_no_liar(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        await swarm.router.chain()
        await swarm.add(*STAGES, cache_tokens=10)  # too small for any session
        swarm.router._looked_at = float("-inf")
        async with swarm.audits() as audits:
            await write(swarm)
            assert (audits.audits.texts, swarm.router.ledger.suspects) == (0, ())


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
    monkeypatch.setattr(outlet, "_packed", WireTensor.pack)  # peers notice what is not finite themselves, if they want
    monkeypatch.setattr(session, "_fits", lambda *_: True)
    async with swarm_of(make) as swarm:
        liar = await join_liar(swarm, material, saying(lambda _, outputs: broken(outputs), lambda _: lying), stage)
        options = {"window": 0, "max_new_tokens": 80}
        expected = (await soon(swarm.write(**options))).token_ids
        lying = True
        if not defended:
            monkeypatch.setattr(Guard, "objection", lambda *_: None)
        text = await soon(swarm.write(**options))
        assert (text.token_ids == expected) == defended
        assert (liar.id in swarm.router.ledger.suspects) == defended
