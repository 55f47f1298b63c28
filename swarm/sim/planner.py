"""How long the planner takes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from swarm.routing.plan import Candidate, plan
from swarm.sim.world import Location, one_way_ms

SPANS = (4, 8, 16)
NEIGHBOURS = 16  # measured by each peer
REPEATS = 15


@dataclass(frozen=True)
class Timing:
    """The times of plans over a number of records."""

    records: int
    model_layers: int
    median_ms: float
    slowest_ms: float


def records(count: int, model_layers: int, seed: int = 0) -> list[Candidate]:
    """Return candidates all over the world, each with links to a few others."""
    rng = random.Random(seed)
    client = Location.choose(rng)
    places = [Location.choose(rng) for _ in range(count)]
    made = []
    for i, place in enumerate(places):
        length = min(rng.choice(SPANS), model_layers)
        first = min(max(rng.randint(-length, model_layers), 0), model_layers - length)
        near = rng.sample(range(count), min(NEIGHBOURS, count))
        links = {f"p{j}": one_way_ms(place, places[j]) for j in near if j != i}
        rtt_ms = 2 * one_way_ms(client, place)
        layer_ms = 0.5 * rng.lognormvariate(0, 0.6)
        span = first, first + length
        made.append(Candidate(f"p{i}", *span, rtt_ms, layer_ms=layer_ms, neighbours_ms=links))
    return made


def plan_ms(candidates: Sequence[Candidate], model_layers: int) -> list[float]:
    """Return the milliseconds of `REPEATS` plans over these candidates."""
    taken = []
    for _ in range(REPEATS):
        began = perf_counter()
        plan(candidates, model_layers)
        taken.append(1e3 * (perf_counter() - began))
    return taken


def benchmark(counts: Sequence[int], model_layers: int) -> list[Timing]:
    """Return a timing for each number of records."""
    timings = []
    for count in counts:
        taken = plan_ms(records(count, model_layers), model_layers)
        timings.append(Timing(count, model_layers, median(taken), max(taken)))
    return timings


def in_words(timings: Sequence[Timing]) -> str:
    """Return a line for each timing."""
    return "\n".join(
        f"{each.records:>7,} records, {each.model_layers} layers: {each.median_ms:.1f} ms a plan "
        f"(slowest {each.slowest_ms:.1f} ms)"
        for each in timings
    )
