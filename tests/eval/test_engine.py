"""Decoding in process is decoding over a swarm without the swarm."""

import os
from itertools import islice

import pytest
import torch

from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.problems import problems
from swarm.eval.engine import InProcess
from swarm.eval.variant import DRAFT_ALONE, PLAIN, Variant, ablation, at_equal_gain, ruled, sweep

PROMPTS = [problem.prompt for problem in islice(problems(31, held_out=True), 3)]
NEW = 60
# prompts, at three temperatures and in three windows
MANY = 200 if os.environ.get("SWARM_TEST_EVERY_WINDOW") else 2


@pytest.fixture(scope="module")
def engine():
    return InProcess(locate(TARGET), locate(DRAFT))


def sample(engine, variant, prompt=PROMPTS[0]):
    return engine.sample(prompt, variant, variant.options(0.0, 0, (), NEW))


def greedy(model, engine, prompt):
    inputs = engine.models.tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    return tuple(output[0, inputs.input_ids.shape[1] :].tolist())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_plain_and_strict_are_what_transformers_says(prompt, engine):
    expected = greedy(engine.target, engine, prompt)
    strict = sample(engine, ruled("strict", 8), prompt)
    assert (
        sample(engine, PLAIN, prompt).generation.token_ids
        == strict.generation.token_ids
        == expected
    )
    assert strict.generation.stats.loops < len(expected) / 2


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_strict_is_plain_for_the_same_seed(temperature, engine):
    for seed, problem in enumerate(islice(problems(32, held_out=True), MANY)):
        said = [
            engine.sample(
                problem.prompt, variant, variant.options(temperature, seed, (), NEW)
            ).generation.token_ids
            for variant in (PLAIN, *(ruled("strict", window) for window in (1, 8, "auto")))
        ]
        assert said.count(said[0]) == len(said), seed


def test_the_draft_alone_is_the_draft(engine):
    said = sample(engine, DRAFT_ALONE).generation.token_ids
    assert said == greedy(engine.models.draft.model, engine, PROMPTS[0])
    assert said != sample(engine, PLAIN).generation.token_ids


def test_how_likely_the_target_finds_a_text(engine):
    found = sample(engine, PLAIN)
    prompt, new = engine.models.tokenizer(PROMPTS[0]).input_ids, list(found.generation.token_ids)
    with torch.inference_mode():
        log_p = engine.target(input_ids=torch.tensor([prompt + new])).logits[0].log_softmax(-1)
    by_hand = [float(log_p[len(prompt) + i - 1, token]) for i, token in enumerate(new)]
    assert found.mean_log_p == pytest.approx(sum(by_hand) / len(new), rel=1e-4)


def test_a_class_of_key_tokens_can_be_switched_off(engine):
    generous = "adaptive:tau=20,budget=10000,gap=1,contrast=20,agreement=0"
    variants = [Variant("x", generous, 8, frozenset(off)) for off in (set(), {"number", "name"})]
    by_class = [
        {
            piece.reason
            for prompt in PROMPTS
            for piece in sample(engine, variant, prompt).generation.pieces
            if piece.key
        }
        for variant in variants
    ]
    assert by_class[0] & {"number", "name"}
    assert not by_class[1] & {"number", "name"}


def test_the_blind_control_lets_as_many_misses_pass(engine):
    generation = sample(engine, ruled("adaptive", 8)).generation
    stats = generation.stats
    share = stats.relaxed_tokens / (stats.relaxed_tokens + stats.rejections)
    assert at_equal_gain([generation], 8).verify == f"random:rate={share:.3f}"


def test_sweeps_and_ablations_are_variants_of_one_rule():
    assert [v.verify for v in sweep("adaptive:budget=5", "tau", (0.5, 1.0), 8)] == [
        "adaptive:budget=5,tau=0.5",
        "adaptive:budget=5,tau=1",
    ]
    names = [variant.name for variant in ablation("adaptive", 8)]
    assert len(set(names)) == len(names) > 10
    assert {
        "without the signal gap",
        "without all signals",
        "without the class number",
        "without all classes",
    } < set(names)
