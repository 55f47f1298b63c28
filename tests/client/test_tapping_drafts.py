"""Drafts by heads that read several layers: over real peers, and texts stay exact."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.feature_drafts import (
    HOT,
    PLAIN,
    SHORT_WINDOWS,
    Told,
    note_what_is_told,
    outputs_of_layers,
    with_draft,
    write,
)
from helpers.feature_heads import save_eagle
from helpers.loopback import eventually
from helpers.models import LAYERS
from helpers.strikes import killing
from helpers.swarm_in_process import NEW, PROMPT, STAGES, Material, Swarm, swarm_of
from helpers.tapping_heads import TAPS, save_dspark, save_specforge
from swarm.decoding import calibration
from swarm.decoding.calibration import Calibrations
from swarm.decoding.confidence import Confidence
from swarm.decoding.feature_book import FIRST_ANSWERED
from swarm.wire.taps import LayerOutputs

REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.7, "seed": 5},
    "hot": HOT,
    "hot window": {**HOT, "depth": 1, "window": 4},
}
HEADS = {"EAGLE-3": save_specforge, "DSpark": save_dspark}


@pytest.fixture(autouse=True)
def _random_heads_may_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "ENOUGH", 10**9)


@pytest.fixture(scope="module", params=HEADS)
def with_head(
    request: pytest.FixtureRequest, material: Material, tmp_path_factory: pytest.TempPathFactory
) -> Material:
    return with_draft(material, HEADS[request.param](tmp_path_factory.mktemp("head")))


@pytest.fixture(scope="module")
def with_eagle3(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return with_draft(material, save_specforge(tmp_path_factory.mktemp("head")))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return note_what_is_told(monkeypatch)


@pytest.fixture(scope="module")
def outputs(material: Material) -> Callable[[tuple[int, ...]], Tensor]:
    return outputs_of_layers(material)


def of_text(told: Told, line: tuple[int, ...]) -> dict[int, Tensor]:
    """Return what was told of the tokens of a text, by position, also while they were drafts."""
    return {
        feature.position: feature.output
        for text, feature in told.features
        if not feature.path or line[: feature.position + 1] == (*text, *feature.path)
    }


def assert_as_computed(told: Told, line: tuple[int, ...], whole: Tensor) -> list[int]:
    """What was told are the tapped layers' outputs, in eight bits; return of which positions."""
    known = of_text(told, line)
    for position, output in known.items():
        expected = whole[position, list(TAPS)]
        assert output.shape == expected.shape
        assert (output - expected).norm() < 0.05 * expected.norm()
    return sorted(known)


async def test_texts_are_those_of_plain_decoding(with_head: Material) -> None:
    async with swarm_of(lambda: Swarm(with_head), *STAGES) as swarm:
        for name, options in REQUESTS.items():
            sampling = {key: options[key] for key in options.keys() & {"temperature", "seed"}}
            plain = await write(swarm, **sampling, **PLAIN)
            text = await write(swarm, **options)
            assert text.token_ids == plain.token_ids, name
            assert text.stats.draft_error is None
            assert text.stats.drafted_tokens > 0, name
            assert text.stats.bytes_received > plain.stats.bytes_received
            if "hot" in name:
                # Without a window, how much is drafted in time depends on the clock.
                assert text.stats.accepted_tokens > (NEW / 4 if "window" in options else 0), name


@pytest.mark.parametrize("stages", [(), (1,), (0, 1, 2)], ids=str)
async def test_whatever_fails_the_drafter_gets_what_the_layers_gave(
    stages: tuple[int, ...],
    with_head: Material,
    told: Told,
    outputs: Callable[[tuple[int, ...]], Tensor],
) -> None:
    async with swarm_of(lambda: Swarm(with_head), *STAGES, *STAGES) as swarm:
        plain = await write(swarm, **HOT, **PLAIN)
        text = await write(swarm, strike=killing(*stages) if stages else None, **SHORT_WINDOWS)
    assert text.token_ids == plain.token_ids
    line = (*PROMPT, *text.token_ids)
    known = assert_as_computed(told, line, outputs(line))
    assert known[-1] > len(PROMPT) + NEW / 2
    if not stages:
        assert known == list(range(FIRST_ANSWERED, known[-1] + 1))


async def test_a_peer_that_stood_by_tells_outputs_from_then_on(
    with_eagle3: Material, told: Told, outputs: Callable[[tuple[int, ...]], Tensor]
) -> None:
    async with swarm_of(lambda: Swarm(with_eagle3), *STAGES, *STAGES) as swarm:
        stream, session = swarm.stream(**SHORT_WINDOWS, standby=True, keep=True), None
        at = 0
        async for _ in stream:
            at += 1
            if at == NEW // 2:
                await eventually(lambda: len(stream.standby) == len(STAGES))
                session = stream._session
                assert session is not None
                assert session.protocol.taps is not None
                await killing(1)(swarm, stream)
        assert [each.standby for each in stream.result.stats.failovers] == [True]
        assert session is not None
        assert session.protocol.taps is not None
        line = (*PROMPT, *stream.result.token_ids)
    assert assert_as_computed(told, line, outputs(line))[-1] > len(PROMPT) + NEW * 3 / 4


async def test_a_text_that_goes_on_knows_the_outputs_of_the_one_before(
    with_eagle3: Material, told: Told, outputs: Callable[[tuple[int, ...]], Tensor]
) -> None:
    async with swarm_of(lambda: Swarm(with_eagle3), *STAGES) as swarm:
        first = await write(swarm, **HOT, keep=True)
        prompt = [*PROMPT, *first.token_ids, 11, 12, 13]
        plain = await write(swarm, prompt=prompt, **HOT, **PLAIN, keep=True)
        assert plain.stats.cached_tokens > 0
        told.features.clear()
        # the session is that of the plain text, and its peers tell outputs again
        prompt = [*prompt, *plain.token_ids, 14]
        second = await write(swarm, prompt=prompt, **HOT, keep=True)
    assert second.stats.cached_tokens > 0
    line = (*prompt, *second.token_ids)
    assert assert_as_computed(told, line, outputs(line))[-1] > len(prompt)


async def test_older_peers_leave_the_text_without_the_head(
    with_eagle3: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with swarm_of(lambda: Swarm(with_eagle3), *STAGES) as swarm:
        monkeypatch.setattr(swarm.up[1].span, "taps", False, raising=False)
        plain = await write(swarm, **HOT, **PLAIN)
        text = await write(swarm, **HOT)
    assert text.token_ids == plain.token_ids
    assert text.stats.draft_error is not None
    assert "cannot tell what its layers give" in text.stats.draft_error


async def test_a_client_without_a_head_taps_the_last_layer(
    material: Material,
    told: Told,
    outputs: Callable[[tuple[int, ...]], Tensor],
    tmp_path: Path,
) -> None:
    lacking = with_draft(material, save_eagle(tmp_path / "head")).without_head
    async with swarm_of(lambda: Swarm(lacking), *STAGES) as swarm:
        plain = await write(swarm, **HOT, **PLAIN)
        text = await write(swarm, **SHORT_WINDOWS)
    assert text.token_ids == plain.token_ids
    assert text.stats.draft_error is None
    assert text.stats.drafted_tokens > 0
    line = (*PROMPT, *text.token_ids)
    whole, known = outputs(line), of_text(told, line)
    assert max(known) > len(PROMPT) + NEW / 2
    for position, output in known.items():
        expected = whole[position, LAYERS - 1]
        assert (output - expected).norm() < 0.05 * expected.norm()


def afresh(material: Material) -> Material:
    """Return the same with nothing known of the head."""
    fresh = {"confidence": Confidence(), "calibrations": Calibrations()}
    return replace(material, models=replace(material.models, **fresh))


async def test_a_head_that_has_failed_with_a_peer_s_outputs_is_used_with_another_s(
    with_eagle3: Material,
) -> None:
    material = afresh(with_eagle3)
    async with swarm_of(lambda: Swarm(material), *STAGES) as swarm:
        doubted = swarm.up[1]
        text = await write(swarm, **SHORT_WINDOWS)
        assert text.stats.drafted_tokens > 0
        (tellers,) = material.models.calibrations._by_tellers
        assert doubted.id in tellers
        material.models.calibrations.of(tellers).failure = "its guesses are wrong"
        text = await write(swarm, **SHORT_WINDOWS)
        assert "with others the head is tried again" in (text.stats.draft_error or "")
        for stage in STAGES:
            await swarm.add(stage)
        swarm.survey_anew()
        text = await write(swarm, **SHORT_WINDOWS)
        assert text.stats.draft_error is None
        assert text.stats.drafted_tokens > 0
        assert not tellers & {stop.peer_id for stop in text.route}


async def test_a_head_that_was_not_trained_for_this_is_left_with_one_sentence(
    with_head: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ENOUGH", 24)
    async with swarm_of(lambda: Swarm(afresh(with_head)), *STAGES) as swarm:
        plain = await write(swarm, **PLAIN)
        texts = [await write(swarm) for _ in range(3)]
    assert {text.token_ids for text in texts} == {plain.token_ids}
    assert texts[0].stats.drafted_tokens > 0
    assert "does not read what it was trained on" in (texts[-1].stats.draft_error or "")


def lying(peer: Any, lie: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a peer tell something else of its layers than they gave."""
    forward = peer.span.forward

    def changed(batch: Any, first: int, last: int) -> Any:
        outputs = forward(batch, first, last)
        for work in batch:
            if work.taps is not None and work.taps.outputs:
                told = torch.cat([part.unpack() for part in work.taps.outputs])
                work.taps.outputs = LayerOutputs.pack(lie(told), work.taps.terms.float8)
        return outputs

    monkeypatch.setattr(peer.span, "forward", changed)


@pytest.mark.threat("false-taps")
async def test_invented_outputs_leave_the_text_as_it_is(
    with_eagle3: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with swarm_of(lambda: Swarm(with_eagle3), *STAGES) as swarm:
        lying(swarm.up[1], torch.randn_like, monkeypatch)
        plain = await write(swarm, **HOT, **PLAIN)
        text = await write(swarm, **HOT)
    assert text.token_ids == plain.token_ids
    assert text.stats.failovers == ()


@pytest.mark.threat("broken-taps")
@pytest.mark.parametrize(
    "lie",
    [
        lambda told: torch.full_like(told, float("nan")),
        lambda told: told[..., :-1],
        lambda told: torch.cat((told, told), dim=1),
    ],
    ids=["not finite", "narrow", "of more layers"],
)
async def test_a_peer_that_tells_broken_outputs_is_replaced(
    lie: Callable[[Tensor], Tensor], with_eagle3: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with swarm_of(lambda: Swarm(with_eagle3), *STAGES, STAGES[1]) as swarm:
        plain = await write(swarm, **HOT, **PLAIN)
        swarm.states[swarm.up[3].id] = "joining"  # so the chain has the other one at first
        swarm.survey_anew()

        def lie_once_the_other_may_step_in(told: Tensor) -> Tensor:
            swarm.states.clear()
            swarm.survey_anew()
            return lie(told)

        lying(swarm.up[1], lie_once_the_other_may_step_in, monkeypatch)
        text = await write(swarm, **HOT)
        assert [each.peers for each in text.stats.failovers] == [(swarm.up[1].id,)]
    assert text.token_ids == plain.token_ids
