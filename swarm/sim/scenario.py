"""A swarm's story: peers come, clients use it, many peers leave at once, it heals."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from swarm.chain.book import NEAREST
from swarm.sim.clients import Client, Log
from swarm.sim.dht import Cost
from swarm.sim.events import Process
from swarm.sim.peers import Peer
from swarm.sim.swarm import Member, Swarm
from swarm.sim.world import Place

# layers that a peer can hold, and how many of a hundred do
CAPACITIES = ((2, 40), (4, 30), (8, 20), (16, 10))
LAYER_MS, LAYER_SPREAD = 0.5, 0.6  # median time of one layer for one token, and its spread
# median of a visit, and its spread: one of eight ends within ten minutes
LIFE_S, LIFE_SPREAD = 3600.0, 1.5
RETURN_S = 30.0  # until somebody else comes for a peer that left, on average
SAMPLE_S = 5.0
ESTIMATES = 50  # how often the number of peers is estimated


@dataclass(frozen=True)
class Scenario:
    """What happens. Times are seconds of simulated time."""

    peers: int
    seed: int = 0
    model_layers: int = 80
    joining_s: float = 600.0  # in which all of them come
    steady_s: float = 600.0  # after that, until many leave at once, without a word
    healing_s: float = 600.0
    departing: float = 0.3  # share of the peers
    clients: int = 200  # in the steady time and after it
    thorough_clients: int = 20  # for whom the best possible loop is worked out
    remembered: int = NEAREST  # peers that a client pings again because they were near

    @property
    def departure_s(self) -> float:
        return self.joining_s + self.steady_s

    @property
    def end_s(self) -> float:
        return self.departure_s + self.healing_s


@dataclass(frozen=True)
class Moment:
    """The state of the swarm at one time, over layers; speeds are tokens per second."""

    at_s: float
    peers: int
    fewest_peers: int
    missing_layers: int
    weakest_speed: float
    mean_speed: float
    largest_key: int
    keys: int


@dataclass
class Story:
    """All that was seen of one scenario."""

    scenario: Scenario
    moments: list[Moment] = field(default_factory=list)
    log: Log = field(default_factory=Log)
    joined: Cost = field(default_factory=Cost)  # of the DHT in the whole time of joining
    steady: Cost = field(default_factory=Cost)  # and in the steady time
    hottest_reads: int = 0  # of one key, in the steady time
    largest_key: int = 0  # at any time
    moves: int = 0  # of peers that were there, in the steady time
    moves_healing: int = 0
    # of the number of peers, over the true one
    estimates: list[float] = field(default_factory=list)
    old_largest_key: int = 0  # with one key for each first layer
    listed: int = 0
    busiest_share: float = 0.0  # of all chains, how many go through the busiest peer


def run(scenario: Scenario, progress: Callable[[float], None] = lambda _: None) -> Story:
    """Let it happen."""
    rng = random.Random(scenario.seed)
    swarm, story = Swarm(scenario.model_layers, rng), Story(scenario)
    events = swarm.events
    for _ in range(scenario.peers):
        events.start(_arrival(swarm), rng.uniform(0, scenario.joining_s))
    events.start(_watch(swarm, story, progress))
    for number in range(scenario.clients):
        thorough = number % max(1, scenario.clients // max(1, scenario.thorough_clients)) == 0
        begins_s = rng.uniform(scenario.joining_s, scenario.end_s)
        client = Client(
            swarm, story.log, thorough and scenario.thorough_clients > 0, scenario.remembered
        )
        events.start(client.live(), begins_s)

    events.run(scenario.joining_s)
    story.joined, swarm.dht.total = swarm.dht.total, Cost()
    swarm.dht.reads.clear()
    moves = swarm.moves
    events.run(scenario.departure_s - 1e-3)
    story.steady, swarm.dht.total = swarm.dht.total, Cost()
    story.moves = swarm.moves - moves
    _look_closer(swarm, story)

    _mass_departure(swarm, scenario.departing)
    moves = swarm.moves
    events.run(scenario.end_s)
    story.moves_healing = swarm.moves - moves
    story.largest_key = swarm.dht.most_records
    story.busiest_share = max(swarm.chains_through.values(), default=0) / max(
        1, story.log.generations
    )
    return story


def _arrival(swarm: Swarm) -> Process:
    """One peer comes.

    What it can do, and for how long it stays, is by lot. When it leaves, another one comes.
    """
    rng = swarm.rng
    capacity = rng.choices(
        [layers for layers, _ in CAPACITIES], weights=[share for _, share in CAPACITIES]
    )[0]
    member = Member(
        f"{rng.getrandbits(128):032x}",
        Place.choose(rng),
        min(capacity, swarm.model_layers),
        LAYER_MS * rng.lognormvariate(0, LAYER_SPREAD),
    )
    peer = Peer(swarm, member, LIFE_S * rng.lognormvariate(0, LIFE_SPREAD))
    yield from peer.live()
    if peer.over:
        swarm.events.start(_arrival(swarm), rng.expovariate(1 / RETURN_S))


def _watch(swarm: Swarm, story: Story, progress: Callable[[float], None]) -> Process:
    while True:
        sizes = [
            size for key, size in swarm.dht.sizes(swarm.now_s).items() if not isinstance(key, str)
        ]
        story.moments.append(
            Moment(
                swarm.now_s,
                len(swarm.members),
                int(swarm.peers_of.min()),
                int((swarm.peers_of == 0).sum()),
                float(np.where(swarm.peers_of > 0, swarm.speed_of, 0.0).min()),
                float(swarm.speed_of.mean()),
                max(sizes, default=0),
                len(sizes),
            )
        )
        progress(swarm.now_s / story.scenario.end_s)
        yield SAMPLE_S


def _look_closer(swarm: Swarm, story: Story) -> None:
    """What takes longer to find out, at one moment."""
    story.hottest_reads = max(swarm.dht.reads.values(), default=0)
    story.listed = sum(
        size for key, size in swarm.dht.sizes(swarm.now_s).items() if isinstance(key, str)
    )
    story.old_largest_key = int(
        np.bincount([member.first for member in swarm.members.values()], minlength=1).max()
    )
    for _ in range(ESTIMATES):
        story.estimates.append(swarm.survey(Cost()).total / max(1, len(swarm.members)))


def _mass_departure(swarm: Swarm, share: float) -> None:
    for peer_id in swarm.rng.sample(sorted(swarm.members), round(share * len(swarm.members))):
        swarm.leave(swarm.members[peer_id])
