import random
from itertools import pairwise

import numpy as np
import pytest

from swarm.sim.world import Location, Locations, one_way_ms, one_way_table_ms

RNG = random.Random(0)
PLACES = [Location.choose(RNG) for _ in range(200)]


def test_delays_are_those_of_the_internet():
    delays = sorted(one_way_ms(a, b) for a, b in pairwise(PLACES))
    assert 30 < delays[len(delays) // 2] < 120
    assert delays[0] > 1
    assert delays[-1] < 250


def test_links_are_the_same_both_ways_and_no_detour_is_shorter():
    for a, b, c in zip(PLACES, PLACES[1:], PLACES[2:], strict=False):
        assert one_way_ms(a, b) == pytest.approx(one_way_ms(b, a))
        assert one_way_ms(a, c) <= one_way_ms(a, b) + one_way_ms(b, c) + 1e-6


def test_a_table_says_the_same():
    here, there = Locations(PLACES[:5]), Locations(PLACES[5:9])
    expected = [[one_way_ms(a, b) for b in PLACES[5:9]] for a in PLACES[:5]]
    assert np.allclose(one_way_table_ms(here, there), expected)
    assert np.allclose(one_way_table_ms(here[np.array([3, 1])], there), [expected[3], expected[1]])
