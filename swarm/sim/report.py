"""The figures of stories, as tables for a document."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from swarm.identity import Identity
from swarm.network.dht.records import PeerRecord, encode
from swarm.network.dht.validator import SIGNATURE_BYTES
from swarm.sim.clients import ChainSearch
from swarm.sim.dht import Cost
from swarm.sim.scenario import Moment, Story

SUBKEY_BYTES = 54 + 9 + 6  # peer id, expiration, headers

Column = tuple[str, Callable[[Story], str]]


def record_bytes() -> int:
    """Return the size of a usual record as it is stored."""
    record = PeerRecord(
        peer_id=Identity.generate().peer_id,
        network="public",
        model="organisation/some-model-70B-instruct",
        fingerprint="0" * 32,
        model_layers=80,
        state="online",
        first_layer=12,
        last_layer=20,
        dtype="bfloat16",
        addresses=("203.0.113.17:31330",),
        certificate="0" * 64,
        tokens_per_second=123.4,
        free_cache_tokens=65536,
        software="0.1.0",
        protocol=1,
    )
    return len(encode(record)) + SIGNATURE_BYTES + SUBKEY_BYTES


def firsts(story: Story) -> list[ChainSearch]:
    """Return the first search of every client."""
    return [found for found in story.log.found if not found.generation]


def discovery_kb(story: Story) -> float:
    """Return the median cost of a client's first survey, all copies and answers included."""
    costs = [found.cost.nbytes(story.scenario.peers, record_bytes()) for found in firsts(story)]
    return median(costs) / 1e3 if costs else 0.0


def old_discovery_kb(peers: int, model_layers: int) -> float:
    """Return the same with one key for every first layer."""
    return Cost(lookups=model_layers, records=peers).nbytes(peers, record_bytes()) / 1e3


def ratios(story: Story, best: bool = False, first: bool = True) -> list[float]:
    """Return the clients' loops over the best ones, ascending.

    Args:
        best: compare with the best possible loop; else with the plan of a client that knows all
            peers, but not all links.
        first: use the clients' first plans; else those for their last generations.
    """
    searches = [found for found in story.log.found if first != bool(found.generation)]
    pairs = [(found.loop_ms, found.best_ms if best else found.known_best_ms) for found in searches]
    return sorted(loop / least for loop, least in pairs if loop is not None and least is not None)


def at(story: Story, at_s: float) -> Moment:
    """Return the last moment that was recorded before a time."""
    earlier = (moment for moment in story.moments if moment.at_s < at_s)
    return max(earlier, key=lambda moment: moment.at_s)


def first(story: Story, since_s: float, true: Callable[[Moment], bool]) -> float | None:
    """Return how many seconds after a time ``true`` held for the first time."""
    return next((m.at_s - since_s for m in story.moments if m.at_s >= since_s and true(m)), None)


def whole_after_departure_s(story: Story) -> float | None:
    """Return the time from the departure until every layer is served again."""
    return first(story, story.scenario.departure_s, lambda moment: not moment.missing_layers)


def balance(moment: Moment) -> float:
    """Return the weakest layer's speed over the mean of all layers."""
    return moment.weakest_speed / moment.mean_speed if moment.mean_speed else 0.0


def moves_per_peer_hour(moves: int, seconds: float, peers: int) -> float:
    return moves / peers / (seconds / 3600)


def _before(story: Story) -> Moment:
    return at(story, story.scenario.departure_s)


def _after(story: Story, seconds: float) -> Moment:
    return at(story, story.scenario.departure_s + seconds)


def _per_node_s(story: Story, value: float) -> float:
    return value / story.scenario.peers / story.scenario.steady_s


def _median(values: Iterable[float]) -> str:
    values = list(values)
    return f"{median(values):,.0f}" if values else "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def _percent_range(values: Iterable[float]) -> str:
    values = sorted(values)
    return f"{values[len(values) // 20]:.2f} to {values[-1 - len(values) // 20]:.2f}"


def _share(values: Sequence[float], share: float) -> str:
    return f"{values[min(len(values) - 1, int(share * len(values)))]:.2f}" if values else "-"


DIRECTORY: tuple[Column, ...] = (
    ("peers", lambda s: f"{s.scenario.peers:,}"),
    ("keys in use", lambda s: f"{_before(s).keys:,}"),
    ("most records a key, ever", lambda s: f"{s.largest_key}"),
    ("old: in the fullest key", lambda s: f"{s.old_largest_key:,}"),
    ("entries in the list of models", lambda s: f"{s.listed}"),
    ("old", lambda s: f"{s.scenario.peers:,}"),
    ("look-ups a discovery", lambda s: f"{_median(f.cost.lookups for f in firsts(s))}"),
    ("records", lambda s: f"{_median(f.cost.records for f in firsts(s))}"),
    ("KB", lambda s: f"{discovery_kb(s):,.0f}"),
    ("old: KB", lambda s: f"{old_discovery_kb(s.scenario.peers, s.scenario.model_layers):,.0f}"),
    ("estimate of peers over truth, 90 %", lambda s: _percent_range(s.estimates)),
)
LOAD: tuple[Column, ...] = (
    ("peers", lambda s: f"{s.scenario.peers:,}"),
    ("look-ups/s a node", lambda s: f"{_per_node_s(s, s.steady.lookups):.3f}"),
    ("stores/s a node", lambda s: f"{_per_node_s(s, s.steady.stores):.3f}"),
    ("messages/s a node", lambda s: f"{_per_node_s(s, s.steady.messages(s.scenario.peers)):.1f}"),
    (
        "KB/s a node",
        lambda s: f"{_per_node_s(s, s.steady.nbytes(s.scenario.peers, record_bytes())) / 1e3:.1f}",
    ),
    ("reads/s of the hottest key", lambda s: f"{s.hottest_reads / s.scenario.steady_s:.2f}"),
)
COVERAGE: tuple[Column, ...] = (
    ("peers", lambda s: f"{s.scenario.peers:,}"),
    (
        "whole after the first came",
        lambda s: _seconds(first(s, 0.0, lambda m: not m.missing_layers)),
    ),
    ("weakest layer: peers", lambda s: f"{_before(s).fewest_peers}"),
    ("its speed over the mean", lambda s: f"{balance(_before(s)):.2f}"),
    ("many have left: peers", lambda s: f"{_after(s, 5.1).fewest_peers}"),
    ("speed over the mean", lambda s: f"{balance(_after(s, 5.1)):.2f}"),
    ("whole again", lambda s: _seconds(whole_after_departure_s(s))),
    ("after 2 min", lambda s: f"{balance(_after(s, 120)):.2f}"),
    ("after 10 min", lambda s: f"{balance(_after(s, 600)):.2f}"),
    (
        "moves a peer and hour",
        lambda s: f"{moves_per_peer_hour(s.moves, s.scenario.steady_s, s.scenario.peers):.2f}",
    ),
    (
        "while healing",
        lambda s: (
            f"{moves_per_peer_hour(s.moves_healing, s.scenario.healing_s, s.scenario.peers):.2f}"
        ),
    ),
)
LOOPS: tuple[Column, ...] = (
    ("peers", lambda s: f"{s.scenario.peers:,}"),
    ("loop, ms", lambda s: f"{_median(f.loop_ms for f in firsts(s) if f.loop_ms)}"),
    ("over that of who knows all peers", lambda s: _share(ratios(s), 0.5)),
    ("90 %", lambda s: _share(ratios(s), 0.9)),
    ("in a client's last generation", lambda s: _share(ratios(s, first=False), 0.5)),
    ("over that of who knows all links, too", lambda s: _share(ratios(s, best=True), 0.5)),
    ("90 % of clients", lambda s: _share(ratios(s, best=True), 0.9)),
    (
        "no chain found",
        lambda s: f"{sum(f.loop_ms is None for f in firsts(s))} of {len(firsts(s))}",
    ),
    ("dead among the pinged", lambda s: _dead(s)),
    ("chains that broke", lambda s: f"{s.log.broken} of {s.log.generations}"),
    ("repaired at once", lambda s: f"{s.log.repaired}"),
    ("busiest peer is in", lambda s: f"{s.busiest_share:.1%}"),
)
TABLES = {"Directory": DIRECTORY, "Load of the DHT": LOAD, "Coverage": COVERAGE, "Loops": LOOPS}


def _dead(story: Story) -> str:
    pinged = sum(found.pinged for found in story.log.found)
    return f"{sum(found.dead for found in story.log.found) / max(1, pinged):.1%}"


def markdown(stories: Sequence[Story]) -> str:
    """Return all tables, with a row for each story."""
    tables = (f"### {name}\n\n{_table(columns, stories)}" for name, columns in TABLES.items())
    return "\n\n".join(tables)


def _table(columns: Sequence[Column], stories: Sequence[Story]) -> str:
    lines = [[name for name, _ in columns], ["---:"] * len(columns)]
    lines += [[cell(story) for _, cell in columns] for story in stories]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
