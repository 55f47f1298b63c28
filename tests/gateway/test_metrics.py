"""Metrics that are derived from others, and those of audits."""

from dataclasses import dataclass

from swarm.gateway.admission import AdmissionControl
from swarm.gateway.metrics import MAX_POSITIONS, Metrics, kept_at
from swarm.outputs import Audits


def test_places_of_kept_tokens_follow_from_how_many_each_loop_kept():
    assert kept_at((2, 0, 3, 1)) == [4, 4, 1]  # three loops kept two tokens, and one kept three
    assert kept_at(()) == kept_at((5,)) == []
    assert len(kept_at((0,) * 100)) == MAX_POSITIONS


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
