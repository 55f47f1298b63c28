"""Audits over real peers that lie: the peer that computes something else is found, and no other."""

import random
from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch

from helpers.liars import (
    CHUNKED,
    FEW,
    LENGTHS,
    LIARS,
    ROOM,
    SEVERAL,
    STAGES,
    banned,
    join_liar,
    prompt_of,
    saying,
    write,
)
from helpers.loopback import soon
from helpers.swarm_in_process import Material, Swarm, swarm_of
from peers.sessions import checks, downstream
from swarm.audit.guard import ENOUGH, Guard
from swarm.audit.tolerance import Tolerance
from swarm.chain import choice
from swarm.client import rerun
from swarm.decoding.windows import Window
from swarm.sim.lies import noise, small_frames
from swarm.wire.tensors import WireTensor

pytestmark = pytest.mark.usefixtures("chains_stay")


@pytest.mark.parametrize("defended", [True, False])
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
    defended: bool,
    make_fresh: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It serves the first layers; `test_a_liar_is_banned_however_long_the_prompt` has the last."""
    # another defence, which would come first
    monkeypatch.setattr(Guard, "objection", lambda *_: None)
    if not defended:
        monkeypatch.setattr(Tolerance, "holds", lambda *_: True)
    async with swarm_of(make_fresh) as swarm:
        liar = await join_liar(swarm, material, LIARS[name], STAGES[0])
        async with swarm.audits() as audits:
            await write(swarm)
            assert audits.audits.texts == 1
            assert banned(swarm) == ([liar.id] if defended else [])
            await write(swarm)
            assert audits.audits.caught == ((liar.id,) if defended else ())


@pytest.mark.threat("two-faced")
@pytest.mark.parametrize("defended", [True, False])
async def test_audits_cannot_be_told_from_texts(
    defended: bool,
    make_fresh: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A liar that is honest to prompts, and to all that looks like them.

    Client and link are the same in all.
    """

    def prefill(tokens: Sequence[int], prompt_tokens: int, *_: object) -> list[Window]:
        return [Window(0, 0, 1, tuple(tokens), None, len(tokens) - prompt_tokens + 1, 0)]

    if not defended:
        monkeypatch.setattr(rerun, "replay_windows", prefill)
    async with swarm_of(make_fresh) as swarm:
        liar = await join_liar(swarm, material, saying(noise, small_frames), STAGES[0])
        async with swarm.audits() as audits:
            await write(swarm, prompt=[5, 6, 7, 8, 9] * 4)
            assert audits.audits.disagreements == 1
            assert banned(swarm) == ([liar.id] if defended else [])


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        *product(["noise"], LENGTHS),  # how a prompt travels is the same for all
        *product(["two-faced"], (1, CHUNKED, SEVERAL)),
        *((name, CHUNKED) for name in LIARS if name != "noise"),
    ],
)
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
    defended: bool,
    make_fresh: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is used whenever it may be, being the fastest."""
    chance, texts = random.Random(3), 0
    if not defended:
        monkeypatch.setattr(Tolerance, "holds", lambda *_: True)
    monkeypatch.setattr(choice, "STICKY", 1.0)
    async with swarm_of(make_fresh) as swarm:
        liar = await join_liar(
            swarm, material, saying(noise, lambda _: chance.random() < 0.01), STAGES[0]
        )
        slow = [peer.id for peer in swarm.up if peer.id != liar.id and peer.span.first == 0]
        monkeypatch.setattr(
            swarm.health, "layer_ms", lambda peer_id: 1e3 if peer_id in slow else 1.0
        )
        async with swarm.audits():
            while not banned(swarm) and texts < (200 if defended else 3):
                await write(swarm, max_new_tokens=64)
                texts += 1
        assert banned(swarm) == ([liar.id] if defended else [])


async def test_where_two_disagree_and_there_is_no_third_nobody_is_banned(
    make_fresh: Callable[[], Swarm], material: Material
) -> None:
    async with swarm_of(make_fresh) as swarm:
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
    make_fresh: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken, lying = BROKEN[name], False
    monkeypatch.setattr(
        downstream, "_packed", WireTensor.pack
    )  # peers notice what is not finite themselves, if they want
    monkeypatch.setattr(checks, "_fits", lambda *_: True)
    async with swarm_of(make_fresh) as swarm:
        liar = await join_liar(
            swarm, material, saying(lambda _, outputs: broken(outputs), lambda _: lying), stage
        )
        # sizes are judged by those of so many answers
        usual = FEW + ENOUGH if name.startswith("too") else FEW
        expected = (await soon(swarm.write(window=0, max_new_tokens=usual))).token_ids
        lying = True
        if not defended:
            monkeypatch.setattr(Guard, "objection", lambda *_: None)
        text = await soon(swarm.write(window=0, max_new_tokens=FEW))
        assert (text.token_ids == expected[:FEW]) == defended
        assert (liar.id in swarm.router.ledger.suspects) == defended
