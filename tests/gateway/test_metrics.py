"""Counters that are derived rather than counted."""

from swarm.gateway.metrics import MAX_POSITIONS, kept_at


def test_places_of_kept_tokens_follow_from_how_many_each_loop_kept():
    assert kept_at((2, 0, 3, 1)) == [4, 4, 1]  # three loops kept two tokens, and one kept three
    assert kept_at(()) == kept_at((5,)) == []
    assert len(kept_at((0,) * 100)) == MAX_POSITIONS
