"""Single misses along the target's own text, and the texts that took one drafted token."""

from itertools import islice

import pytest
import torch

from helpers.feature_heads import save_eagle, save_target
from helpers.tapping_heads import save_dspark, save_specforge
from swarm.decoding.sampling import Sampling
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.problems import problems
from swarm.errors import SwarmError
from swarm.eval.consequences import marks
from swarm.eval.engine import InProcess
from swarm.eval.lockstep import Position
from swarm.eval.run import EvalError
from swarm.eval.study import CHEAP_NATS, REST_TOKENS, Prober
from swarm.eval.study_file import read_study, write_study
from swarm.eval.study_report import adaptive_rule
from swarm.eval.study_run import StudyPlan, study_items
from swarm.eval.tasks import Item, Task
from swarm.eval.variant import PLAIN, ruled

NEW = 70  # so that some rests are cut, and some texts end with their length
PROMPTS = [problem.prompt for problem in islice(problems(33, held_out=True), 3)]
RULES = ("adaptive", "typical", "near_tie:ratio=0.2")


def says_seven(text):
    return "7" in text


@pytest.fixture(scope="module")
def engine():
    return InProcess(locate(TARGET), locate(DRAFT))


@pytest.fixture(scope="module")
def plan():
    items = tuple(Item(prompt, says_seven, "sums") for prompt in PROMPTS)
    return StudyPlan(Task("test", items, NEW), RULES, 0.0, 1.0)


@pytest.fixture(scope="module")
def texts(engine, plan):
    return study_items(engine, plan, plan.task.items, 0)


@torch.inference_mode()
def plain(engine, prompt, taken=()):
    """Return the new tokens that transformers writes behind a prompt and some taken tokens."""
    ids = torch.tensor([[*prompt, *taken]])
    output = engine.target.generate(ids, max_new_tokens=NEW - len(taken), do_sample=False)
    return tuple(output[0, len(prompt) :].tolist())


def test_the_text_is_the_targets_own(engine, texts):
    for prompt, text in zip(PROMPTS, texts, strict=True):
        ids = engine.encode(prompt)
        assert text.tokens == plain(engine, ids)
        assert text.right == says_seven(engine.models.tokenizer.decode(text.tokens))
        assert sum(text.log_p) / len(text.tokens) == pytest.approx(
            engine.sample(ids, PLAIN, PLAIN.options(0.0, 0, (), NEW)).mean_log_p, abs=1e-3
        )
        assert text.drafted in (len(text.tokens), len(text.tokens) - 1)  # not the last of all
        assert text.kind == "sums"
    assert sum(len(text.misses) for text in texts) > 10


def test_a_probe_takes_one_drafted_token_and_then_the_targets_choices(engine, texts):
    for prompt, text in zip(PROMPTS, texts, strict=True):
        ids = engine.encode(prompt)
        for miss in [each for each in text.misses if each.probe][:4]:
            assert miss.choice == text.tokens[miss.position]
            taken = (*text.tokens[: miss.position], miss.drafted)
            stopped = miss.drafted in engine.models.checkpoint.eos_token_ids
            whole = taken if stopped else plain(engine, ids, taken)
            assert miss.probe.tokens == whole[len(taken) :][:REST_TOKENS]
            assert len(miss.probe.log_p) == len(miss.probe.tokens)
            assert miss.probe.right == says_seven(engine.models.tokenizer.decode(whole))


def test_facts_are_those_of_the_rules(engine, texts):
    for prompt, text in zip(PROMPTS, texts, strict=True):
        miss = text.misses[0]
        history = [*engine.encode(prompt), *text.tokens[: miss.position]]
        with torch.inference_mode():
            log_p, log_q = (
                model(torch.tensor([history])).logits[0, -1].log_softmax(-1)
                for model in (engine.target, engine.models.draft.model)
            )
        assert int(log_q.argmax()) == miss.drafted
        assert miss.deficit_nats == pytest.approx(
            float(log_p[miss.choice] - log_p[miss.drafted]), abs=1e-3
        )
        first, second = log_p.exp().topk(2).values.tolist()
        assert miss.gap == pytest.approx(first - second, abs=1e-3)
        assert miss.agreement == pytest.approx(
            float(torch.minimum(log_p, log_q).exp().sum()), abs=1e-3
        )
        kinds = {engine.models.lexicon.key(each, history) for each in (miss.choice, miss.drafted)}
        assert set(miss.classes) == kinds - {""}
        assert miss.passes["near_tie:ratio=0.2"] == (
            float(log_p[miss.drafted].exp()) >= max(second - 1e-6, 0.2 * first)
        )
        assert set(miss.passes) == set(RULES)


@pytest.mark.parametrize(("check", "goes_on"), [(None, False), (says_seven, True)])
def test_a_probe_ends_where_it_is_no_longer_looked_at(check, goes_on):
    prober = Prober(Item("?", check), 1.0)
    position = Position([1], torch.tensor([0.0, 1.0]), None, Sampling(), 9)
    assert all(list(prober.write(position)) == [(1, prober)] for _ in range(REST_TOKENS))
    assert list(prober.write(position)) == [(1, prober)] * goes_on
    assert prober.probe.tokens == (1,) * REST_TOKENS


def test_without_a_check_no_answer_is_right_or_wrong(engine, plan):
    (text,) = study_items(engine, plan, [Item(PROMPTS[0], None)], 0)
    assert text.right is None
    assert {miss.probe.right for miss in text.misses if miss.probe} == {None}


def test_only_a_share_of_the_misses_is_probed(engine, plan):
    task = plan.task
    some = study_items(engine, StudyPlan(task, RULES, 0.0, 0.4), task.items, 0)
    cheap = [each for text in some for each in text.misses if each.deficit_nats <= CHEAP_NATS]
    probed = [each for each in cheap if each.probe]
    assert 0 < len(probed) < len(cheap)
    assert {each.probe.weight for each in probed} == {1 / 0.4}


@pytest.mark.parametrize("save", [save_eagle, save_specforge, save_dspark])
def test_a_head_guesses_what_it_drafts_right_behind_an_answer(save, tmp_path, monkeypatch):
    engine = InProcess(str(save_target(tmp_path / "target")), str(save(tmp_path / "head")))
    monkeypatch.setattr(engine, "encode", lambda prompt, *, chat=False: list(range(len(prompt))))
    items = (Item("." * 9, None), Item("." * 70, None))  # the second takes two frames
    hot = StudyPlan(Task("test", items, 24), RULES, 8.0, 1.0)  # noise decides most tokens
    for seed, (item, text) in enumerate(
        zip(items, study_items(engine, hot, items, 5), strict=True), 5
    ):
        one = ruled("strict", 1)
        sample = engine.sample(engine.encode(item.prompt), one, one.options(8.0, seed, (), 24))
        assert text.tokens == sample.token_ids
        assert text.drafted == min(len(text.tokens), 24 - 1) - 1  # not the first, nor the last
        guesses = list(text.tokens)
        for miss in text.misses:
            guesses[miss.position] = miss.drafted
        drafted = [(at, piece.drafted_id) for at, piece in enumerate(sample.pieces)]
        known = [(at, token) for at, token in drafted if token is not None]
        assert len(known) > 8
        assert [token for _, token in known] == [guesses[at] for at, _ in known]
        assert text.misses
        assert {miss.probe is None for miss in text.misses if miss.deficit_nats <= 1} == {False}


def test_models_that_read_one_text_at_a_time_cannot_be_studied(engine, plan, monkeypatch):
    monkeypatch.setattr(engine, "lockstep", None)
    with pytest.raises(EvalError, match="several texts"):
        study_items(engine, plan, plan.task.items, 0)


def test_a_file_keeps_a_study(texts, tmp_path):
    file = tmp_path / "study.jsonl"
    settings = {"model": "x", "rules": list(RULES)}
    assert read_study(file, settings) == []
    write_study(file, settings, texts[:1])
    write_study(file, settings, texts)
    assert read_study(file, settings) == texts
    assert [each.name for each in tmp_path.glob("study*")] == ["study.jsonl"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": 1, "model": "y"}\n', "other settings"),
        ("", "no study"),
        ("not json\n", "no JSON object"),
        ('{"format": 1, "model": "x"}\n{"tokens": [1]}\n', "no text of a study"),
        ('{"format": 1, "model": "x"}\n{"misses": [3]}\n', "no text of a study"),
    ],
)
def test_a_file_that_is_no_such_study_is_one_sentence(content, words, tmp_path):
    file = tmp_path / "study.jsonl"
    file.write_text(content)
    with pytest.raises(SwarmError) as caught:
        read_study(file, {"model": "x"})
    assert words in str(caught.value)
    assert file.read_text() == content


def test_what_the_adaptive_rule_does_follows_from_the_facts(texts):
    rule = adaptive_rule("adaptive")
    misses = [miss for text in texts for miss in text.misses]
    for miss in misses:
        # Asked at every miss as at the beginning of a text, it has all of its budget.
        assert miss.passes["adaptive"] == (miss.deficit_nats <= rule.tau and not marks(miss, rule))
    assert len({miss.passes["adaptive"] for miss in misses}) == 2
