"""Groups of misses: sums by hand, and differences where the truth is known."""

import math
import random

import pytest

from swarm.decoding.rules.adaptive import Adaptive
from swarm.decoding.rules.lexicon import Lexicon
from swarm.eval.consequences import Study, marks
from swarm.eval.study import MissFacts, ProbeText, StudiedText
from swarm.eval.study_report import adaptive_rule, study_facts, study_markdown, study_tables

REST = tuple(range(10, 20))


def miss(position=0, nats=0.1, probe=None, classes=(), **more):
    facts = {"gap": 0.1, "contrast": 0.0, "agreement": 0.9, "passes": {"typical": nats < 0.6}}
    return MissFacts(position, 1, 2, nats, classes=classes, probe=probe, **{**facts, **more})


def probe(alike, right=True, log_p=-1.0, weight=1.0):
    """Return a probe whose rest shares so many of ten tokens with the target's text."""
    tokens = (*REST[:alike], *range(100, 110 - alike))
    return ProbeText(tokens, (log_p,) * 10, right, weight)


def text(*misses, right=True, kind="", drafted=10):
    return StudiedText(kind, (9, *REST), (-0.5,) * 11, right, drafted, misses)


def everything(_):
    return True


def test_consequences_add_up():
    study = Study(
        [
            text(miss(nats=0.2, probe=probe(4, right=False)), miss(nats=0.4)),
            text(miss(nats=1.2, probe=probe(8, log_p=-2.0)), right=False, drafted=30),
        ]
    )
    found = study.consequences(everything)
    assert found.per_100.value == pytest.approx(100 * 3 / 40)
    assert found.nats.value == pytest.approx(0.6)
    assert found.probes == 2
    assert found.alike.value == pytest.approx((0.4 + 0.8) / 2)
    assert found.log_p.value == pytest.approx(-1.5 - -0.5)
    assert found.lost.value == pytest.approx(100 * (1 - 1) / 2)
    low, high = found.alike.interval
    assert (low, high) == pytest.approx((0.4, 0.8))


def test_a_probe_counts_as_often_as_it_stands_for_misses():
    study = Study([text(miss(probe=probe(4)), miss(probe=probe(8, right=False, weight=3.0)))])
    found = study.consequences(everything)
    assert found.probes == 2
    assert found.alike.value == pytest.approx((0.4 + 3 * 0.8) / 4)
    assert found.lost.value == pytest.approx(75)
    assert found.per_100.value == pytest.approx(20)


def test_answers_that_no_program_checks_have_no_losses():
    study = Study([text(miss(probe=probe(5, right=None)), right=None)])
    assert math.isnan(study.consequences(everything).lost.value)
    tables = study_tables(study.texts, ["adaptive", "typical"])
    checked = study_tables([text(miss(probe=probe(5)))], [])
    assert "answers lost |" in study_markdown(checked)
    # One probe shows nothing, and is not shown.
    assert "| all misses | 10.0 | 0.10 | 1 | - | - | - | - | - | - |" in study_markdown(checked)
    many = study_tables([text(*[miss(probe=probe(5))] * 12)], [])
    assert "| 12 | 50.0% |" in study_markdown(many)
    assert "answers lost |" not in study_markdown(tables)


def test_the_cheapest_are_as_many():
    study = Study([text(*(miss(nats=nats) for nats in (0.3, 0.1, 0.9, 0.2)))])
    assert study.count(study.cheapest(3)) == 3
    assert study.count(study.cheapest(0)) == 0
    assert not study.cheapest(2)(miss(nats=0.3))


@pytest.mark.parametrize("truth", [0, 3])
def test_marks_are_compared_at_equal_cost(truth):
    """Costlier misses change more here; marked ones are mostly costly, and change `truth` more."""
    rng = random.Random(5)
    texts = []
    for _ in range(300):
        marked = rng.random() < 0.5
        costly = rng.random() < (0.8 if marked else 0.2)
        shared = 8 - 4 * costly - truth * marked + rng.choice((-1, 0, 1))
        nats = 0.9 if costly else 0.1
        texts.append(text(miss(nats=nats, probe=probe(shared), classes=("name",) * marked)))
    study = Study(texts)

    def marked(each):
        return bool(each.classes)

    def unmarked(each):
        return not each.classes

    naive = study.beside(marked, unmarked, at_equal_cost=False).alike
    fair = study.beside(marked, unmarked, at_equal_cost=True).alike
    assert naive.interval[1] < -truth / 10 - 0.1
    assert fair.interval[0] < -truth / 10 < fair.interval[1]
    assert fair.interval[1] - fair.interval[0] < 0.1


def test_a_mark_is_what_the_rule_takes_for_key():
    rule = Adaptive(Lexicon(lambda _: ""), gap=0.5, contrast=1.0, agreement=0.3)
    assert marks(miss(), rule) == []
    key = miss(classes=("name", "number"), gap=0.6, contrast=1.1, agreement=0.2)
    assert marks(key, rule) == [
        "the class name",
        "the class number",
        "the signal gap",
        "the signal contrast",
        "the signal agreement",
    ]
    assert adaptive_rule("adaptive:gap=0.5,tau=2").tau == 2


def test_the_tables_have_rules_marks_and_kinds_of_work():
    texts = [
        text(
            miss(nats=0.1, probe=probe(9)),
            miss(3, nats=0.7, probe=probe(2), classes=("number",)),
            miss(5, nats=3.0, probe=probe(1)),
            kind=kind,
        )
        for kind in ("qa", "rag") * 3
    ]
    rules, by_mark, by_kind = study_tables(texts, ["adaptive", "adaptive:tau=5", "typical"])
    assert {row.name: row.consequences.per_100.value for row in rules.rows} == {
        "all misses": 30.0,
        "adaptive": 10.0,
        "adaptive:tau=5": 20.0,
        "typical": 10.0,
    }
    assert [row.name for row in by_mark.rows] == [
        "not key",
        "key by anything",
        "key by a class",
        "key by a class alone",
        "key by a signal",
        "key by a signal alone",
        "the class number",
    ]
    assert [row.name for row in by_kind.rows] == [
        "qa: not key",
        "qa: key by anything",
        "rag: not key",
        "rag: key by anything",
    ]
    assert study_markdown([rules, by_mark, by_kind]).count("\n| --- |") == 3
    assert study_facts([rules])[0]["rows"][1]["name"] == "adaptive"
