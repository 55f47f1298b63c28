"""A simulated swarm: its peers, the layers that they serve, and its directory."""

import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from swarm.network.dht.crawl import Crawl, CrawlSample
from swarm.network.dht.keys import block_count
from swarm.network.dht.lookup import ENOUGH_PEERS, covers
from swarm.sim.dht import Cost, Dht, Entry
from swarm.sim.events import Events
from swarm.sim.world import Location

Floats = NDArray[np.float64]


@dataclass(eq=False)
class SimulatedPeer:
    """A peer's true state."""

    peer_id: str
    place: Location
    capacity: int  # layers
    layer_ms: float  # time of one layer for one token
    first: int = 0
    last: int = 0
    online: bool = False
    alive: bool = True

    @property
    def tokens_per_second(self) -> float:
        """The speed of as many layers as it can hold, as a peer measures it."""
        return 1e3 / (self.layer_ms * self.capacity)


@dataclass
class SimulatedSwarm:
    """One model's peers, their DHT, and the simulated time."""

    model_layers: int
    rng: random.Random
    events: Events = field(default_factory=Events)
    dht: Dht = field(default_factory=Dht)
    members: dict[str, SimulatedPeer] = field(default_factory=dict)  # the living ones, by id
    moves: int = 0
    chains_through: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.peers_of = np.zeros(self.model_layers, dtype=np.int64)  # online, of each layer
        self.speed_of = np.zeros(self.model_layers)  # tokens per second of each layer

    @property
    def now_s(self) -> float:
        return self.events.now_s

    def serve(self, member: SimulatedPeer, online: bool) -> None:
        """Take a peer's layers online, or offline."""
        if member.online != online:
            sign = 1 if online else -1
            self.peers_of[member.first : member.last] += sign
            self.speed_of[member.first : member.last] += sign * member.tokens_per_second
            member.online = online

    def leave(self, member: SimulatedPeer) -> None:
        """Remove a peer; its record stays until it expires or is removed."""
        self.serve(member, online=False)
        member.alive = False
        self.members.pop(member.peer_id, None)

    def survey(self, cost: Cost, enough: int = ENOUGH_PEERS) -> CrawlSample[Entry]:
        """What a reader finds, by the rules that real ones read by."""
        survey: Crawl[Entry] = Crawl(
            range(block_count(self.model_layers)),
            enough,
            self.rng,
            satisfied=lambda found: covers(
                (entry for entry in found if entry.online), self.model_layers
            ),
        )
        while shards := survey.wanted():
            found = self.dht.read(shards, self.now_s, cost)
            survey.saw(dict(zip(shards, found, strict=True)))
        return survey.sample()
