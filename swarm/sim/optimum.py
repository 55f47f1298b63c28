"""The shortest loop over all peers and all links: a baseline that no client can know."""

from collections.abc import Sequence

import numpy as np

from swarm.sim.swarm import SimulatedPeer
from swarm.sim.world import Location, Locations, one_way_table_ms


def best_possible_ms(client: Location, peers: Sequence[SimulatedPeer], model_layers: int) -> float:
    """Return a lower bound of the best loop, by dynamic programming over (layer, peer).

    It may be lower because it allows a chain to enter a peer again.
    """
    places = Locations([peer.place for peer in peers])
    home = Locations([client])
    first = np.array([peer.first for peer in peers])
    last = np.array([peer.last for peer in peers])
    layer_ms = np.array([peer.layer_ms for peer in peers])
    from_client = one_way_table_ms(home, places)[0]
    here = np.flatnonzero(first == 0)
    passed = from_client[here] + layer_ms[here]
    for layer in range(1, model_layers):
        there = np.flatnonzero((first <= layer) & (layer < last))
        if not len(here) or not len(there):
            return float("inf")
        links = one_way_table_ms(places[here], places[there])
        links[here[:, None] == there[None, :]] = 0.0  # the same peer
        passed = (passed[:, None] + links).min(axis=0) + layer_ms[there]
        here = there
    return float((passed + from_client[here]).min())
