"""Metrics that are derived from others, and those of audits."""

from dataclasses import dataclass

from helpers.text_stats import text_stats, time_share
from swarm.decoding.acceptance import SourceAcceptance
from swarm.gateway.admission import AdmissionControl
from swarm.gateway.metrics import MAX_POSITIONS, Metrics, kept_at
from swarm.outputs import Audits


def test_places_of_kept_tokens_follow_from_how_many_each_loop_kept():
    assert kept_at((2, 0, 3, 1)) == [4, 4, 1]  # three loops kept two tokens, and one kept three
    assert kept_at(()) == kept_at((5,)) == []
    assert len(kept_at((0,) * 100)) == MAX_POSITIONS


def test_drafts_are_counted_by_their_source():
    metrics = Metrics(AdmissionControl())
    counted = (SourceAcceptance("copy", (2, 1), (1, 1)), SourceAcceptance("model", (9,), (5,)))
    for _ in range(2):
        stats = text_stats(drafted_tokens=12, acceptance_by_source=counted)
        metrics.finished("tiny", stats, 1.0)
    assert {
        'swarm_drafts_judged_total{model_name="tiny",source="copy"} 6.0',
        'swarm_drafts_accepted_total{model_name="tiny",source="copy"} 4.0',
        'swarm_drafts_judged_total{model_name="tiny",source="model"} 18.0',
        'swarm_drafts_accepted_total{model_name="tiny",source="model"} 10.0',
    } <= set(metrics.text().decode().splitlines())


@dataclass
class Engine:
    audits: Audits


def test_audits_are_told_as_they_are_when_somebody_looks():
    engine = Engine(Audits())
    metrics = Metrics(AdmissionControl())
    metrics.watch_audits("tiny", engine)
    assert 'swarm_audits_total{model_name="tiny",result="agreed"} 0.0' in metrics.text().decode()
    engine.audits = Audits(texts=5, disagreements=2, caught=("a",), failures={"busy": 3}, waiting=4)
    told = metrics.text().decode().splitlines()
    assert {
        'swarm_audits_total{model_name="tiny",result="agreed"} 3.0',
        'swarm_audits_total{model_name="tiny",result="disagreed"} 2.0',
        'swarm_audits_failed_total{model_name="tiny",reason="busy"} 3.0',
        'swarm_audits_waiting{model_name="tiny"} 4.0',
        'swarm_peers_caught{model_name="tiny"} 1.0',
    } <= set(told)


def test_what_texts_waited_for_is_summed_in_seconds():
    metrics = Metrics(AdmissionControl())
    share = time_share(links=0.5, judging=0.25)
    for seconds in (2.0, 4.0):
        stats = text_stats(share=share, seconds=seconds, judge_ms=30.0, draft_ms_per_token=7.0)
        metrics.finished("tiny", stats, seconds)
    metrics.finished("tiny", text_stats(), 1.0)
    assert {
        'swarm_text_seconds_total{model_name="tiny",part="links"} 3.0',
        'swarm_text_seconds_total{model_name="tiny",part="judging"} 1.5',
        'swarm_text_seconds_total{model_name="tiny",part="drafting"} 0.0',
        'swarm_judge_seconds_count{model_name="tiny"} 2.0',
        'swarm_judge_seconds_sum{model_name="tiny"} 0.06',
        'swarm_draft_seconds_sum{model_name="tiny"} 0.014',
    } <= set(metrics.text().decode().splitlines())
