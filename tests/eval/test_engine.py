"""Decoding in process is decoding over a swarm without the swarm."""

import os
from dataclasses import replace
from itertools import islice

import pytest
import torch

from helpers.feature_heads import save_eagle, save_target
from helpers.tapping_heads import save_dspark, save_specforge
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.problems import problems
from swarm.errors import ConfigError
from swarm.eval.command import EvalSettings, variants_of
from swarm.eval.engine import Decoding, InProcess
from swarm.eval.sample import EvalSample
from swarm.eval.variant import DRAFT_ALONE, PLAIN, Variant, ablation, at_equal_gain, ruled, sweep
from swarm.model.branching import BranchingModel
from swarm.request import Request

PROMPTS = [problem.prompt for problem in islice(problems(31, held_out=True), 3)]
NEW = 60
# prompts, at three temperatures and in three windows
MANY = 200 if os.environ.get("SWARM_TEST_EVERY_WINDOW") else 2


@pytest.fixture(scope="module")
def engine():
    return InProcess(locate(TARGET), locate(DRAFT))


def sample(engine, variant, prompt=PROMPTS[0]):
    return engine.sample(engine.encode(prompt), variant, variant.options(0.0, 0, (), NEW))


def greedy(model, engine, prompt):
    inputs = engine.models.tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    return tuple(output[0, inputs.input_ids.shape[1] :].tolist())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_plain_and_strict_are_what_transformers_says(prompt, engine):
    expected = greedy(engine.target, engine, prompt)
    strict = sample(engine, ruled("strict", 8), prompt)
    assert sample(engine, PLAIN, prompt).token_ids == strict.token_ids == expected
    assert strict.loops < len(expected) / 2


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_strict_is_plain_for_the_same_seed(temperature, engine):
    for seed, problem in enumerate(islice(problems(32, held_out=True), MANY)):
        said = [
            engine.sample(
                engine.encode(problem.prompt), variant, variant.options(temperature, seed, (), NEW)
            ).token_ids
            for variant in (PLAIN, *(ruled("strict", window) for window in (1, 8, "auto")))
        ]
        assert said.count(said[0]) == len(said), seed


def test_the_draft_alone_is_the_draft(engine):
    said = sample(engine, DRAFT_ALONE).token_ids
    assert said == greedy(engine.models.draft.model, engine, PROMPTS[0])
    assert said != sample(engine, PLAIN).token_ids


def test_how_likely_the_target_finds_a_text(engine):
    found = sample(engine, PLAIN)
    prompt, new = engine.models.tokenizer(PROMPTS[0]).input_ids, list(found.token_ids)
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
            for piece in sample(engine, variant, prompt).pieces
            if piece.key
        }
        for variant in variants
    ]
    assert by_class[0] & {"number", "name"}
    assert not by_class[1] & {"number", "name"}


def test_the_blind_control_lets_as_many_misses_pass(engine):
    relaxed = sample(engine, ruled("adaptive", 8))
    share = relaxed.relaxed / (relaxed.relaxed + relaxed.overruled)
    assert at_equal_gain([relaxed], 8).verify == f"random:rate={share:.3f}"


def test_a_sample_counts_what_the_client_counts(engine):
    prompt = engine.encode(PROMPTS[1])
    variant = ruled("adaptive", 8)
    options = variant.options(0.0, 0, (), NEW)
    generation = engine._generate(prompt, variant, Request.of(options))
    counted = EvalSample.of(generation)
    stats = generation.stats
    assert (counted.tokens, counted.accepted, counted.overruled, counted.relaxed) == (
        stats.new_tokens,
        stats.accepted_tokens,
        stats.rejections,
        stats.relaxed_tokens,
    )
    assert counted.deficit_nats == pytest.approx(stats.deficit_nats)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("stop", [(), (" so", "#")])
def test_many_texts_in_lockstep_are_those_decoded_one_by_one(temperature, stop, engine):
    variants = (
        PLAIN,
        DRAFT_ALONE,
        ruled("strict", 3),
        ruled("adaptive", 8),
        ruled("typical", 5),
        ruled("random:rate=0.7", 8),
        ruled("rejection", 4),
        Variant("no names", "adaptive", 8, frozenset({"name"})),
    )
    # So short that some texts end by their length, with drafts up to the end.
    how = Decoding(variants, temperature, 25, stop)
    together = engine.decode(PROMPTS, range(3), how)
    for seed, (prompt, samples) in enumerate(zip(PROMPTS, together, strict=True)):
        for variant, decoded in zip(variants, samples, strict=True):
            alone = engine.sample(engine.encode(prompt), variant, how.options(variant, seed))
            assert decoded.text == alone.text, variant
            assert [_facts(piece) for piece in decoded.pieces] == [
                _facts(piece) for piece in alone.pieces
            ]
            assert (decoded.finish_reason, decoded.loops) == (alone.finish_reason, alone.loops)
            assert decoded.mean_log_p == pytest.approx(alone.mean_log_p, abs=1e-3)
            assert decoded.deficit_nats == pytest.approx(alone.deficit_nats, abs=1e-3)


def _facts(piece):
    return (piece.token_id, piece.origin, piece.drafted_id, piece.choice_id, piece.key)


def test_writers_that_agree_share_a_forward(engine, monkeypatch):
    read = []
    together = BranchingModel.read_together

    def counted(model, batch):
        read.append(len(batch))
        return together(model, batch)

    monkeypatch.setattr(BranchingModel, "read_together", counted)
    variants = (PLAIN, *(ruled("strict", window) for window in (2, 4, 8)))
    engine.decode(PROMPTS[:1], [0], Decoding(variants, 0.0, 20))
    assert set(read) == {1}


def test_a_stop_string_is_looked_for_in_what_is_new(engine, monkeypatch):
    decoded = []
    decode = type(engine.models.tokenizer).decode

    def counted(tokenizer, ids, **options):
        decoded.append(len(ids))
        return decode(tokenizer, ids, **options)

    monkeypatch.setattr(type(engine.models.tokenizer), "decode", counted)
    ((sample,),) = engine.decode(PROMPTS[:1], [0], Decoding((PLAIN,), 0.0, NEW, ("nowhere",)))
    assert len(decoded) <= 5 * len(sample.token_ids)


def test_models_that_read_one_text_at_a_time_are_evaluated_too(engine, monkeypatch):
    how = Decoding((PLAIN, ruled("adaptive", 8)), 0.0, 20)
    together = engine.decode(PROMPTS[:1], [0], how)
    monkeypatch.setattr(engine, "lockstep", None)
    alone = engine.decode(PROMPTS[:1], [0], how)
    assert [[each.token_ids for each in samples] for samples in together] == [
        [each.token_ids for each in samples] for samples in alone
    ]


@pytest.mark.parametrize("save", [save_eagle, save_specforge, save_dspark])
def test_a_head_drafts_in_this_process_too(save, tmp_path):
    target = str(save_target(tmp_path / "target"))
    engine = InProcess(target, str(save(tmp_path / "head")))
    prompt = [5, 6, 7, 8, 9]
    hot = [ruled("strict", 4).options(8.0, 3, (), 24), PLAIN.options(8.0, 3, (), 24)]
    drafted = engine.sample(prompt, ruled("strict", 4), hot[0])
    assert drafted.token_ids == engine.sample(prompt, PLAIN, hot[1]).token_ids
    assert drafted.loops < len(drafted.token_ids) / 2  # noise decides, and the head has the same
    with pytest.raises(ConfigError, match="cannot write alone"):
        engine.sample(prompt, DRAFT_ALONE, DRAFT_ALONE.options(0.0, 0, (), 9))


@pytest.mark.parametrize("save", [save_eagle, save_specforge, save_dspark])
def test_a_head_drafts_in_lockstep_what_it_drafts_alone(save, tmp_path, monkeypatch):
    engine = InProcess(str(save_target(tmp_path / "target")), str(save(tmp_path / "head")))
    monkeypatch.setattr(engine, "encode", lambda prompt, *, chat=False: list(range(len(prompt))))
    rules = ["strict", "adaptive:tau=2", "typical", "random:rate=0.3"]
    how = Decoding((PLAIN, *(ruled(rule, 4) for rule in rules)), 8.0, 24)
    prompts, seeds = ["." * 5, "." * 70], [3, 4]  # the second takes two frames
    together = engine.decode(prompts, seeds, how)
    monkeypatch.setattr(engine, "lockstep", None)
    for samples, alone in zip(together, engine.decode(prompts, seeds, how), strict=True):
        for one, other in zip(samples, alone, strict=True):
            assert one.token_ids == other.token_ids
            assert one.loops == other.loops
            drafted = [piece.drafted_id for piece in one.pieces]
            assert drafted == [piece.drafted_id for piece in other.pieces]
        assert samples[1].loops < samples[0].loops


def test_a_head_of_the_target_drafts_but_does_not_write_alone(tmp_path):
    target = str(save_target(tmp_path / "target"))
    head = str(save_eagle(tmp_path / "head"))
    settings = EvalSettings(target, head, ("typical",), 3, 0.0, (), None, 0.01, 1, None)
    variants = variants_of(settings)
    assert [variant.name for variant in variants] == ["plain target", "strict", "typical"]
    assert DRAFT_ALONE in variants_of(replace(settings, draft=locate(DRAFT)))
    ((plain, strict, _),) = InProcess(target, head).decode(
        ["one two three"], [0], Decoding(tuple(variants), 0.0, 8)
    )
    assert plain.token_ids == strict.token_ids
    assert strict.drafted


def test_a_users_message_gets_the_form_of_the_chat_template(engine, monkeypatch):
    tokenizer = engine.models.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert engine.encode("Hi", chat=True) == engine.encode("Hi")
    template = "{% for message in messages %}Q: {{ message.content }} A:{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    assert tokenizer.decode(engine.encode("Hi", chat=True)) == "Q: Hi A:"


def test_sweeps_and_ablations_are_variants_of_one_rule():
    assert [v.verify for v in sweep("adaptive:budget=5", "tau", (0.5, 1.0), 8)] == [
        "adaptive:budget=5,tau=0.5",
        "adaptive:budget=5,tau=1",
    ]
    groups = [variant.name for variant in ablation("adaptive", 8, each=False)]
    assert groups == [
        "without all signals",
        "without all classes",
        "without all signals and classes",
    ]
    names = [variant.name for variant in ablation("adaptive", 8, each=True)]
    assert len(set(names)) == len(names) > 10
    assert set(groups) < set(names)
    assert {
        "without the signal gap",
        "without all signals",
        "without the class number",
        "without all classes",
    } < set(names)
