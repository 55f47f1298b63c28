"""Peers that lie, and swarms with audits over them, for tests of the auditor."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from helpers.loopback import Peer, soon
from helpers.models import VOCAB
from helpers.swarm_in_process import Material, Swarm
from swarm.audit.guard import Guard
from swarm.chain import choice
from swarm.model.span import Span
from swarm.sim.lies import (
    LyingSpan,
    SkippingSpan,
    cheap_weights,
    noise,
    other_weights,
    unchanged,
    zeros,
)

STAGES = [(0, 2), (2, 4)]
CHUNKED = 257  # tokens of a prompt that travels in a frame and one of a single token
SEVERAL = 700  # tokens of a prompt that travels in three frames
LENGTHS = (1, 256, CHUNKED, SEVERAL, 2049)  # of prompts: within one frame, and in several
ROOM = {"cache_tokens": 1 << 14}
# tokens of a text: with the prompt's answer fewer than 20 windows, if each window is one token
FEW = 16

Liar = Callable[[Material, tuple[int, int]], Span]


def saying(lie: Callable, when: Callable = lambda _: True) -> Liar:
    """Return a peer that changes its outputs by ``lie`` at those batches for which ``when``."""
    return lambda material, stage: LyingSpan(material.spans[stage], lie, when)


LIARS: dict[str, Liar] = {
    "noise": saying(noise),
    "zeros": saying(zeros),
    "unchanged": saying(unchanged),
    "skipped-layers": lambda material, stage: SkippingSpan(material.spans[stage]),
    "wrong-weights": lambda material, stage: other_weights(material.checkpoint, *stage),
    "cheap-weights": lambda material, stage: cheap_weights(material.checkpoint, *stage),
}


def prompt_of(tokens: int) -> list[int]:
    return random.Random(tokens).choices(range(3, VOCAB), k=tokens)


async def join_liar(
    swarm: Swarm, material: Material, liar: Liar, stage: tuple[int, int], **options: int
) -> Peer:
    """Let a liar join a chain that stays, and after it two more honest peers for each stage."""
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


def fresh(material: Material) -> Swarm:
    """Return a swarm whose client has not seen any answers yet."""
    return Swarm(replace(material, models=replace(material.models, guard=Guard())))


@pytest.fixture
def make_fresh(material: Material) -> Callable[[], Swarm]:
    """Return what makes swarms whose clients have not seen any answers yet."""
    return lambda: fresh(material)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Return a model whose context takes long prompts."""
    return Material.load(tmp_path_factory.mktemp("roomy"), max_positions=4096)


@pytest.fixture
def chains_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every client on its chain as long as that can be used."""
    monkeypatch.setattr(choice, "STICKY", 1e9)
