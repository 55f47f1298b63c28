"""A client of a small shape, with scripted spans behind real links, in this process."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace

import psutil
import pytest
import torch

from helpers.loopback import SharedHead
from helpers.shapes import TINY
from helpers.swarm_in_process import Material, Swarm, swarm_of
from peers.compute.scripted import scripted
from swarm.bench.compare import Comparison, compare
from swarm.bench.figures import WayFigures, all_figures
from swarm.bench.ways import BRANCHES, PAPERS_WINDOW, PLAIN, Way
from swarm.client.models import ClientModels
from swarm.errors import ConfigError
from swarm.model.checkpoint import Checkpoint
from swarm.shapes.bench import (
    PROMPT_TOKENS,
    WAYS,
    ShapeSettings,
    TooLarge,
    check_room,
    models_of,
    prompts,
)
from swarm.shapes.catalogue import DraftKind
from swarm.shapes.drafting import lucky
from swarm.shapes.script import Guesser, Odds, Script

SPANS = [(0, 2), (2, 4)]
NEW = 96
ALPHA = 0.7


class _Client:
    """The part of `SwarmClient` that `compare` needs, in a swarm without a DHT."""

    def __init__(self, swarm: Swarm, models: ClientModels) -> None:
        self._swarm = swarm
        self._tokenizer = models.tokenizer

    def stream(self, prompt, **options):
        return self._swarm.stream(
            self._tokenizer(prompt).input_ids, **{**options, "logit_bias": {}}
        )


@dataclass(frozen=True)
class Written:
    """A shape's models, ready to serve and to decode with."""

    script: Script
    material: Material


@contextmanager
def made_with(kind: DraftKind) -> Iterator[Written]:
    with models_of(TINY, lambda _: None, kind) as (folder, script):
        target = str(folder / "target")
        checkpoint = Checkpoint.open(target)
        models = ClientModels.of(checkpoint, str(folder / "draft"))
        assert models.draft is not None
        guesser = Guesser(script, Odds(ALPHA), TINY.vocab_size)
        models = replace(models, draft=lucky(models.draft, guesser))
        spans = {each: scripted(target)(checkpoint, *each, dtype=torch.bfloat16) for each in SPANS}
        head = SharedHead(spans[SPANS[-1]].head)
        yield Written(script, Material(checkpoint, spans, models, head, folder / "draft"))


@pytest.fixture(scope="module")
def made() -> Iterator[Written]:
    with made_with("model") as written:
        yield written


def compared(material: Material, ways: Sequence[Way]) -> Comparison:
    async def run() -> Comparison:
        async with swarm_of(lambda: Swarm(material), *SPANS, max_positions=512) as swarm:
            [prompt] = prompts(ShapeSettings(TINY, Odds(ALPHA), 2, 0.0, 1, NEW, NEW))
            client = _Client(swarm, material.models)
            return await compare(client, prompt, ways, max_new_tokens=NEW)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def comparison(made: Written) -> Comparison:
    return compared(made.material, WAYS)


@pytest.fixture(scope="module")
def rows(comparison: Comparison) -> dict[str, WayFigures]:
    return {row.way: row for row in all_figures([comparison], WAYS)}


def test_every_way_writes_the_script(comparison: Comparison, made: Written) -> None:
    expected = made.script.tokens[PROMPT_TOKENS : PROMPT_TOKENS + NEW]
    for way, generation in comparison.ways.items():
        assert generation.token_ids == expected, way
        assert generation.stats.draft_error is None
    assert comparison.ways[PLAIN.name].text.split() == [f"w{token}" for token in expected]


def test_a_client_without_a_head_writes_the_script_too(
    made: Written, comparison: Comparison
) -> None:
    of_peers = compared(made.material.without_head, (PLAIN, BRANCHES))
    for way, generation in of_peers.ways.items():
        assert generation.token_ids == comparison.ways[way].token_ids, way


def test_a_head_that_drafts_is_told_states_also_without_the_targets_head() -> None:
    with made_with("head") as written:
        expected = written.script.tokens[PROMPT_TOKENS : PROMPT_TOKENS + NEW]
        for material in (written.material, written.material.without_head):
            # Not by default: there it may find that plain decoding is faster.
            ways = (PLAIN, PAPERS_WINDOW)
            generation = compared(material, ways).ways[PAPERS_WINDOW.name]
            assert generation.token_ids == expected
            assert generation.stats.draft_error is None
            assert generation.stats.accepted_tokens > NEW / 4


def test_the_draft_is_right_as_often_as_it_should_be(
    comparison: Comparison, rows: dict[str, WayFigures]
) -> None:
    # A way that waits for its drafts has most of them judged, however busy the machine is.
    deviation = (ALPHA * (1 - ALPHA) / (NEW / 2)) ** 0.5
    assert rows[PAPERS_WINDOW.name].alpha == pytest.approx(ALPHA, abs=4 * deviation)


def test_what_a_text_waited_for_adds_up(rows: dict[str, WayFigures]) -> None:
    for row in rows.values():
        assert row.share is not None, row.way
        assert sum(astuple(row.share)) == pytest.approx(1.0), row.way
        assert min(astuple(row.share)) >= 0, row.way
    assert rows[PLAIN.name].share.drafting == 0.0
    assert rows[PAPERS_WINDOW.name].share.drafting > 0.0


def test_peers_take_the_time_of_their_layers(rows: dict[str, WayFigures]) -> None:
    at_least = TINY.layers * TINY.layer.ms(1)
    assert rows[PLAIN.name].stages_ms >= at_least
    assert rows[PLAIN.name].loop_ms >= at_least


def test_the_models_are_gone_afterwards() -> None:
    with models_of(TINY, lambda _: None) as (folder, _):
        assert (folder / "target" / "model.safetensors").is_file()
        assert (folder / "cache").is_dir()
    assert not folder.exists()


def test_a_shape_that_does_not_fit_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        available = 1000

    check_room(TINY, 2)
    monkeypatch.setattr(psutil, "virtual_memory", Full)
    with pytest.raises(TooLarge) as caught:
        check_room(TINY, 2)
    assert "of memory" in str(caught.value)


def test_more_peers_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError):
        ShapeSettings(TINY, Odds(), 5, 0.0, 1, 8, 8)
