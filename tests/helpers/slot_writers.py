"""Many peers that choose where their records lie, without a network, for tests of `dht.slots`."""

import random
from collections import defaultdict

from swarm.network.dht.keys import Shard, way_of
from swarm.network.dht.slots import RecordSlot


class Trees:
    """One tree of keys, and the peers whose records lie in it. The test hands in the time."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.at: dict[str, Shard] = {}
        self.under: defaultdict[Shard, set[str]] = defaultdict(set)
        self.berths: dict[str, RecordSlot] = {}

    def join(self, peers: int, now_s: float = 0.0) -> None:
        for _ in range(peers):
            peer_id = f"{self.rng.getrandbits(64):x}"
            self.berths[peer_id] = RecordSlot(peer_id, self.rng)
            self.refresh(peer_id, now_s)

    def join_at_once(self, peers: int) -> None:
        """Let peers join that do not see each other when they choose."""
        newcomers = [f"{self.rng.getrandbits(64):x}" for _ in range(peers)]
        for peer_id in newcomers:
            self.berths[peer_id] = berth = RecordSlot(peer_id, self.rng)
            while berth.wanted(0.0) is not None:
                berth.saw([], 0.0)
        for peer_id in newcomers:
            self._put(peer_id)

    def leave(self, share: float) -> None:
        for peer_id in self.rng.sample(sorted(self.berths), round(share * len(self.berths))):
            self.under[self.at.pop(peer_id)].discard(peer_id)
            del self.berths[peer_id]

    def refresh(self, peer_id: str, now_s: float) -> None:
        berth = self.berths[peer_id]
        while (depth := berth.wanted(now_s)) is not None:
            berth.saw(self.under[Shard(0, way_of(peer_id)[:depth])] - {peer_id}, now_s)
        self._put(peer_id)

    def refresh_all(self, now_s: float) -> None:
        for peer_id in self.rng.sample(sorted(self.berths), len(self.berths)):
            self.refresh(peer_id, now_s)

    @property
    def largest(self) -> int:
        return max(map(len, self.under.values()), default=0)

    def _put(self, peer_id: str) -> None:
        if peer_id in self.at:
            self.under[self.at[peer_id]].discard(peer_id)
        self.at[peer_id] = Shard(0, way_of(peer_id)[: self.berths[peer_id].depth])
        self.under[self.at[peer_id]].add(peer_id)
