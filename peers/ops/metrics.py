"""The metrics of a peer and of a bootstrap node, for Prometheus.

All values are read on the event loop when they are asked for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from swarm import __version__
from swarm.errors import DirectoryDown
from swarm.network.dht.records import PeerState

if TYPE_CHECKING:
    from peers.access.reachability import AnnouncedAddresses
    from peers.offer import Offer
    from peers.sessions.handler import Handler
    from swarm.network.dht.directory import Directory

# No label has a value that a stranger could choose: Prometheus keeps a series for each value.


@dataclass(frozen=True, eq=False)
class PeerMetrics(Collector):
    """The metrics of one peer. Its layers may change meanwhile; totals go on.

    Args:
        facts: that do not change while the peer lives, such as its model.
    """

    handler: "Handler"
    offer: "Offer"
    reach: "AnnouncedAddresses"
    facts: Mapping[str, str]

    @property
    def ready(self) -> bool:
        """Whether sessions can be opened."""
        return self.offer.state == "online" and not self.handler.sessions.draining

    @property
    def state(self) -> str:
        return (
            "draining"
            if self.handler.sessions.draining and self.offer.state == "online"
            else self.offer.state
        )

    async def look(self) -> None:
        """Do nothing: all values are at hand."""

    def collect(self) -> Iterator[Metric]:
        """Yield what the peer is and serves, what it does now, and what it has done so far."""
        yield InfoMetricFamily(
            "swarm_peer", "Software and model.", {"version": __version__, **self.facts}
        )
        yield from self._offer()
        yield from self._now()
        yield from self._totals()

    def _offer(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "swarm_peer_state", "1 for the state that the peer is in.", labels=["state"]
        )
        for state in get_args(PeerState):
            states.add_metric([state], state == self.state)
        yield states
        first, last = self.offer.layers
        yield GaugeMetricFamily("swarm_peer_first_layer", "First layer of the span.", first)
        yield GaugeMetricFamily(
            "swarm_peer_layers", "Layers of the span, served or being loaded.", last - first
        )
        speed = self.offer.tokens_per_second
        yield GaugeMetricFamily(
            "swarm_peer_measured_tokens_per_second",
            "Speed of one session, measured when the layers were loaded.",
            speed,
        )
        budget = self.offer.budget
        yield GaugeMetricFamily(
            "swarm_peer_cache_tokens", "Tokens that the cache has room for.", budget.total_tokens
        )
        yield GaugeMetricFamily(
            "swarm_peer_cache_free_tokens",
            "Tokens of the cache that are not reserved.",
            budget.free_tokens,
        )
        addresses = GaugeMetricFamily(
            "swarm_peer_addresses", "Addresses announced, by way in.", labels=["path"]
        )
        places = len(self.reach.places)
        addresses.add_metric(["direct"], len(self.reach.addresses) - places)
        addresses.add_metric(["relay"], places)
        yield addresses

    def _now(self) -> Iterator[Metric]:
        handler = self.handler
        yield GaugeMetricFamily("swarm_peer_sessions", "Open sessions.", len(handler.sessions))
        yield GaugeMetricFamily(
            "swarm_peer_links", "Open links, to next peers included.", handler.links
        )
        yield GaugeMetricFamily(
            "swarm_peer_banned", "Clients and addresses banned now.", handler.admission.bans
        )
        yield GaugeMetricFamily(
            "swarm_peer_queue_wait_seconds",
            "How long a turn has lately waited.",
            handler.sessions.queue_ms / 1e3,
        )
        histories = handler.sessions.histories
        held = histories.total_bytes - histories.free_bytes
        yield GaugeMetricFamily(
            "swarm_peer_history_bytes", "Reserved for outputs that may be replayed.", held
        )
        yield GaugeMetricFamily(
            "swarm_peer_history_limit_bytes",
            "The most bytes that may be reserved for outputs.",
            histories.total_bytes,
        )

    def _totals(self) -> Iterator[Metric]:
        counters = self.handler.counters
        yield CounterMetricFamily("swarm_peer_sessions_opened", "Sessions opened.", counters.opened)
        yield CounterMetricFamily(
            "swarm_peer_tokens", "Tokens computed, guesses and audits included.", counters.tokens
        )
        yield CounterMetricFamily("swarm_peer_batches", "Forward passes.", counters.batches)
        yield CounterMetricFamily(
            "swarm_peer_turns", "Turns of sessions in forward passes.", counters.turns
        )
        yield CounterMetricFamily(
            "swarm_peer_compute_seconds",
            "Time in which the compute thread was busy.",
            counters.compute_s,
        )
        yield CounterMetricFamily(
            "swarm_peer_queue_seconds",
            "Time that turns have waited for other sessions.",
            counters.queue_s,
        )
        yield CounterMetricFamily(
            "swarm_peer_reroutes", "Next peers replaced in sessions.", counters.reroutes
        )
        yield CounterMetricFamily(
            "swarm_peer_replays",
            "Reroutes that replay everything to the new peer.",
            counters.replays,
        )
        sent, received = self.handler.traffic
        traffic = CounterMetricFamily(
            "swarm_peer_bytes", "Bytes of messages over links.", labels=["direction"]
        )
        traffic.add_metric(["sent"], sent)
        traffic.add_metric(["received"], received)
        yield traffic
        yield _by(
            "swarm_peer_faults",
            "Faults sent to clients.",
            "code",
            {code.value: n for code, n in counters.faults.items()},
        )
        yield _by(
            "swarm_peer_refusals",
            "Requests refused, by the limit that they exceed.",
            "kind",
            self.handler.admission.refusals,
        )


class NodeMetrics(Collector):
    """The metrics of a bootstrap node."""

    ready, state = True, "online"

    def __init__(self, directory: "Directory") -> None:
        self._directory = directory
        self._connections = 0

    async def look(self) -> None:
        """Ask libp2p's daemon for what only it knows; without an answer, the last one stays."""
        try:
            self._connections = await self._directory.connections()
        except DirectoryDown:
            self.ready = False
            self.state = "down"
        else:
            self.ready = True
            self.state = "online"

    def collect(self) -> Iterator[Metric]:
        directory, gate = self._directory, self._directory.daemon.gate
        yield InfoMetricFamily("swarm_bootstrap", "Software.", {"version": __version__})
        yield GaugeMetricFamily(
            "swarm_bootstrap_up", "Whether libp2p's daemon answers.", self.ready
        )
        yield GaugeMetricFamily(
            "swarm_bootstrap_nodes", "Other nodes of the DHT that it knows.", directory.neighbours
        )
        yield GaugeMetricFamily(
            "swarm_bootstrap_records", "Records kept for others.", directory.stored
        )
        connections = self._connections
        yield GaugeMetricFamily(
            "swarm_bootstrap_connections",
            "Connections of libp2p, those of relayed peers included.",
            connections,
        )
        calls = CounterMetricFamily(
            "swarm_bootstrap_calls", "Calls of other nodes.", labels=["answer"]
        )
        calls.add_metric(["answered"], gate.answered)
        calls.add_metric(["refused"], gate.refused)
        yield calls


def _by(name: str, what: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, what, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
