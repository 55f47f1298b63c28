"""A small swarm, start to end."""

from dataclasses import replace
from statistics import mean, median

import pytest

from swarm.network.dht.slots import CROWD, LISTED
from swarm.sim.plots import plot
from swarm.sim.report import (
    balance,
    discovery_kb,
    markdown,
    moves_per_peer_hour,
    old_discovery_kb,
    ratios,
    record_bytes,
    whole_after_departure_s,
)
from swarm.sim.scenario import Scenario, run

SMALL = Scenario(
    100, seed=1, joining_s=300, steady_s=300, healing_s=300, clients=40, thorough_clients=8
)


@pytest.fixture(scope="module")
def story():
    return run(SMALL)


def test_the_same_seed_tells_the_same_story():
    tiny = replace(SMALL, peers=20, clients=8, thorough_clients=2)
    assert run(tiny) == run(tiny) != run(replace(tiny, seed=2))


def test_all_layers_are_served_once_all_have_come_and_after_many_left(story):
    settled = [m for m in story.moments if SMALL.joining_s <= m.at_s < SMALL.departure_s]
    assert all(moment.missing_layers == 0 for moment in settled)
    assert whole_after_departure_s(story) is not None
    assert whole_after_departure_s(story) <= 120
    assert story.moments[-1].missing_layers == 0
    assert mean(balance(moment) for moment in settled) > 0.3
    peers_after = [m.peers for m in story.moments if m.at_s > SMALL.departure_s]
    assert peers_after[0] <= 75


def test_keys_stay_small_and_the_list_of_models_short(story):
    assert story.largest_key <= CROWD + 2
    assert 1 <= story.listed <= 3 * LISTED


def test_a_swarm_that_is_small_enough_is_counted_exactly(story):
    assert sum(found.generation == 0 for found in story.log.found) == 40
    # Peers that died are counted until their records expire, those that choose layers from their
    # claim on.
    assert all(0.95 <= estimate <= 1.15 for estimate in story.estimates)


def test_chains_are_nearly_as_good_as_those_of_a_client_that_knows_all_peers(story):
    assert all(ratio >= 1 for ratio in ratios(story, best=True))
    assert median(ratios(story)) < 1.3
    assert median(ratios(story, best=True)) < 2.0
    assert sum(found.loop_ms is None for found in story.log.found) <= 2


def test_peers_do_not_move_about(story):
    assert moves_per_peer_hour(story.moves, SMALL.steady_s, SMALL.peers) < 6


def test_a_report_has_all_figures(story, tmp_path):
    text = markdown([story])
    assert sum(line.startswith("| 100 |") for line in text.splitlines()) == 4
    assert "nan" not in text
    assert 400 < record_bytes() < 1024 - 300
    assert 0 < discovery_kb(story) < old_discovery_kb(100, 80)
    plot([story], tmp_path)
    pictures = {f"scale-{name}.png" for name in ("coverage", "discovery", "loops")}
    assert {file.name for file in tmp_path.glob("*.png")} == pictures
