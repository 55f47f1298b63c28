import random
from itertools import pairwise

import pytest

from swarm.routing.chain import Stage
from swarm.sim.clients import loop_ms
from swarm.sim.optimum import best_possible_ms
from swarm.sim.swarm import SimulatedPeer
from swarm.sim.world import Location


def every_loop(client, peers, layers, at=0, stages=()):
    if at == layers:
        yield loop_ms(client, stages, {peer.peer_id: peer for peer in peers})
    for peer in peers:
        if peer.first <= at < peer.last and all(stage.peer_id != peer.peer_id for stage in stages):
            for end in range(at + 1, min(peer.last, layers) + 1):
                yield from every_loop(
                    client, peers, layers, end, (*stages, Stage(peer.peer_id, at, end))
                )


@pytest.mark.parametrize("seed", range(20))
def test_no_loop_is_shorter(seed):
    rng = random.Random(seed)
    peers = []
    for number in range(5):
        first = rng.randint(0, 4)
        peers.append(
            SimulatedPeer(
                str(number),
                Location.choose(rng),
                4,
                rng.uniform(0, 40),
                first,
                rng.randint(first + 1, 5),
            )
        )
    client = Location.choose(rng)
    least = best_possible_ms(client, peers, 5)
    assert least == pytest.approx(min(every_loop(client, peers, 5), default=float("inf")))


def test_a_loop_is_the_way_around_and_what_is_computed():
    rng = random.Random(0)
    client, a, b = (Location.choose(rng) for _ in range(3))
    from swarm.sim.world import one_way_ms

    members = {"a": SimulatedPeer("a", a, 4, 2.0, 0, 4), "b": SimulatedPeer("b", b, 4, 3.0, 4, 8)}
    travel = sum(one_way_ms(one, other) for one, other in pairwise([client, a, b, client]))
    assert loop_ms(client, [Stage("a", 0, 4), Stage("b", 4, 8)], members) == pytest.approx(
        travel + 4 * 2.0 + 4 * 3.0
    )
