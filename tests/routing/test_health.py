"""A peer that fails is avoided, twice as long each time; measured times replace its own claims."""

import pytest

from swarm.routing import health as module
from swarm.routing.health import FIRST_BACKOFF_S, FORGET_S, MOST_BACKOFF_S, Health


@pytest.fixture
def health(clock):
    return Health(clock, clock)


def test_no_peer_is_suspected_at_first(health):
    assert health.usable("a")
    assert health.layer_ms("a") is None
    assert health.queue_ms("a") is None


def test_the_pause_doubles_with_every_failure_up_to_a_limit(health, clock):
    pauses = []
    for _ in range(12):
        health.failed("a")
        pauses.append(health.retry_in_s("a"))
        assert not health.usable("a")
        clock.now += pauses[-1]
        assert health.usable("a")
    assert pauses[:3] == [FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S]
    assert pauses[-1] == MOST_BACKOFF_S


def test_success_wipes_the_slate_and_so_does_time(health, clock):
    for _ in range(3):
        health.failed("a")
    health.recovered("a")
    assert health.usable("a")
    health.failed("a")
    assert health.retry_in_s("a") == FIRST_BACKOFF_S
    clock.now += FORGET_S + 1
    health.failed("a")
    assert health.retry_in_s("a") == FIRST_BACKOFF_S


def test_only_the_one_that_failed_is_left_alone(health):
    health.failed("a")
    assert health.usable("b")


def test_measurements_fade(health):
    health.served("a", 4, 8.0, 0.0)
    assert health.layer_ms("a") == 2.0
    for _ in range(40):
        health.served("a", 4, 40.0, 5.0)
    assert health.layer_ms("a") == pytest.approx(10.0, rel=0.01)
    assert health.queue_ms("a") == pytest.approx(5.0, rel=0.01)


def test_lists_of_the_users_own(clock):
    assert not Health(clock, clock, block=["a"]).usable("a")
    only = Health(clock, clock, allow=["a"])
    assert only.usable("a")
    assert not only.usable("b")
    both = Health(clock, clock, allow=["a", "b"], block=["b"])
    assert not both.usable("b")


def test_the_book_is_bounded(health, monkeypatch):
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    for peer in "abcd":
        health.failed(peer)
    assert health.usable("a"), "seen longest ago"
    assert not health.usable("d")


def test_a_liar_is_banned_for_a_while_and_a_restart_remembers(clock):
    health = Health(clock, clock)
    health.ban("a")
    health.recovered("a")
    assert not health.usable("a")
    assert health.usable("b")
    again = Health(clock, clock, bans=health.bans)
    assert not again.usable("a")
    clock.now += module.BAN_S + 1
    assert again.usable("a")
    assert again.bans == {}


def test_bans_are_bounded(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    health = Health(clock, clock)
    for peer in "abcd":
        health.ban(peer)
    assert list(health.bans) == ["b", "c", "d"]
