"""A swarm's story: peers join, clients use it, many peers leave at once, it heals."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from swarm.chain.book import NEAREST
from swarm.sim.clients import Client, Log
from swarm.sim.dht import Cost
from swarm.sim.events import Process
from swarm.sim.peers import PeerLife
from swarm.sim.swarm import SimulatedPeer, SimulatedSwarm
from swarm.sim.world import Location

CAPACITIES = ((2, 40), (4, 30), (8, 20), (16, 10))  # layers of a peer, and percent of the peers
LAYER_MS = 0.5  # median time of one layer for one token
LAYER_SPREAD = 0.6  # sigma of its log-normal distribution
LIFE_S = 3600.0  # median time that a peer stays
LIFE_SPREAD = 1.5  # sigma of its log-normal distribution: one of eight leaves within ten minutes
RETURN_S = 30.0  # mean time until another peer joins for one that left
SAMPLE_S = 5.0
ESTIMATES = 50  # of the number of peers


@dataclass(frozen=True)
class Scenario:
    """What happens. Times are seconds of simulated time.

    Attributes:
        joining_s: in which all peers join.
        steady_s: after that, until many leave at once, without an announcement.
        healing_s: after that, until the end.
        departing: share of the peers that leave at once.
        clients: in the steady time and after it.
        thorough_clients: those for which the best possible loop is worked out.
        remembered: near peers that a client pings again.
    """

    peers: int
    seed: int = 0
    model_layers: int = 80
    joining_s: float = 600.0
    steady_s: float = 600.0
    healing_s: float = 600.0
    departing: float = 0.3
    clients: int = 200
    thorough_clients: int = 20
    remembered: int = NEAREST

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
    """All that was recorded of one scenario.

    Attributes:
        joined: cost of the DHT while peers joined.
        steady: cost of the DHT in the steady time.
        hottest_reads: the most reads of one key, in the steady time.
        largest_key: the most records under one key at any time.
        moves: of peers, in the steady time.
        moves_healing: of peers, in the healing time.
        estimates: estimated numbers of peers, over the true one.
        old_largest_key: the most records under one key, with one key for each first layer.
        listed: entries in the list of models.
        busiest_share: chains through the busiest peer, as a share of all.
    """

    scenario: Scenario
    moments: list[Moment] = field(default_factory=list)
    log: Log = field(default_factory=Log)
    joined: Cost = field(default_factory=Cost)
    steady: Cost = field(default_factory=Cost)
    hottest_reads: int = 0
    largest_key: int = 0
    moves: int = 0
    moves_healing: int = 0
    estimates: list[float] = field(default_factory=list)
    old_largest_key: int = 0
    listed: int = 0
    busiest_share: float = 0.0


def run(scenario: Scenario, progress: Callable[[float], None] = lambda _: None) -> Story:
    """Simulate a scenario; ``progress`` is called with the share that is done."""
    rng = random.Random(scenario.seed)
    swarm = SimulatedSwarm(scenario.model_layers, rng)
    story = Story(scenario)
    events = swarm.events
    for _ in range(scenario.peers):
        events.start(_arrival(swarm), rng.uniform(0, scenario.joining_s))
    events.start(_watch(swarm, story, progress))
    every = max(1, scenario.clients // max(1, scenario.thorough_clients))
    for number in range(scenario.clients):
        thorough = scenario.thorough_clients > 0 and number % every == 0
        begins_s = rng.uniform(scenario.joining_s, scenario.end_s)
        client = Client(swarm, story.log, thorough, scenario.remembered)
        events.start(client.live(), begins_s)

    events.run(scenario.joining_s)
    story.joined = swarm.dht.total
    swarm.dht.total = Cost()
    swarm.dht.reads.clear()
    moves = swarm.moves
    events.run(scenario.departure_s - 1e-3)
    story.steady = swarm.dht.total
    swarm.dht.total = Cost()
    story.moves = swarm.moves - moves
    _inspect(swarm, story)

    _mass_departure(swarm, scenario.departing)
    moves = swarm.moves
    events.run(scenario.end_s)
    story.moves_healing = swarm.moves - moves
    story.largest_key = swarm.dht.most_records
    busiest = max(swarm.chains_through.values(), default=0)
    story.busiest_share = busiest / max(1, story.log.generations)
    return story


def _arrival(swarm: SimulatedSwarm) -> Process:
    """Let one peer join, of random capacity, speed and lifetime; when it leaves, another joins."""
    rng = swarm.rng
    sizes = [layers for layers, _ in CAPACITIES]
    capacity = rng.choices(sizes, weights=[percent for _, percent in CAPACITIES])[0]
    member = SimulatedPeer(
        f"{rng.getrandbits(128):032x}",
        Location.choose(rng),
        min(capacity, swarm.model_layers),
        LAYER_MS * rng.lognormvariate(0, LAYER_SPREAD),
    )
    peer = PeerLife(swarm, member, LIFE_S * rng.lognormvariate(0, LIFE_SPREAD))
    yield from peer.live()
    if peer.over:
        swarm.events.start(_arrival(swarm), rng.expovariate(1 / RETURN_S))


def _watch(swarm: SimulatedSwarm, story: Story, progress: Callable[[float], None]) -> Process:
    while True:
        all_sizes = swarm.dht.sizes(swarm.now_s)
        sizes = [size for key, size in all_sizes.items() if not isinstance(key, str)]
        speeds = np.where(swarm.peers_of > 0, swarm.speed_of, 0.0)
        moment = Moment(
            at_s=swarm.now_s,
            peers=len(swarm.members),
            fewest_peers=int(swarm.peers_of.min()),
            missing_layers=int((swarm.peers_of == 0).sum()),
            weakest_speed=float(speeds.min()),
            mean_speed=float(swarm.speed_of.mean()),
            largest_key=max(sizes, default=0),
            keys=len(sizes),
        )
        story.moments.append(moment)
        progress(swarm.now_s / story.scenario.end_s)
        yield SAMPLE_S


def _inspect(swarm: SimulatedSwarm, story: Story) -> None:
    """Record the figures that take longer to find, once."""
    story.hottest_reads = max(swarm.dht.reads.values(), default=0)
    sizes = swarm.dht.sizes(swarm.now_s)
    story.listed = sum(size for key, size in sizes.items() if isinstance(key, str))
    firsts = [member.first for member in swarm.members.values()]
    story.old_largest_key = int(np.bincount(firsts, minlength=1).max())
    for _ in range(ESTIMATES):
        story.estimates.append(swarm.survey(Cost()).total / max(1, len(swarm.members)))


def _mass_departure(swarm: SimulatedSwarm, share: float) -> None:
    for peer_id in swarm.rng.sample(sorted(swarm.members), round(share * len(swarm.members))):
        swarm.leave(swarm.members[peer_id])
