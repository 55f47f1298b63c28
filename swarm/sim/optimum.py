"""The shortest loop there is, over all peers and all links: what no client can know, to compare
with."""

from collections.abc import Sequence

import numpy as np

from swarm.sim.swarm import Member
from swarm.sim.world import Place, Places, one_way_table_ms


def best_possible_ms(client: Place, peers: Sequence[Member], model_layers: int) -> float:
    """Dynamic programming over (layer, peer).

    No more than the best loop: it may enter a peer that it has left.
    """
    places, home = Places([peer.place for peer in peers]), Places([client])
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
        links[here[:, None] == there[None, :]] = 0.0  # it just goes on
        passed = (passed[:, None] + links).min(axis=0) + layer_ms[there]
        here = there
    return float((passed + from_client[here]).min())
