"""Comparisons of ways of decoding with given speeds, for tests of figures and tables."""

from collections.abc import Sequence
from dataclasses import replace

from helpers.clock import Clock
from helpers.text_stats import FACTS
from swarm.bench.compare import Comparison
from swarm.bench.ways import PLAIN, Way
from swarm.client.meter import Meter
from swarm.decoding.counts import Counts
from swarm.outputs import Generation, Measured


def generation(tokens_per_second: float, tokens: tuple[int, ...] = (1, 2, 3, 4)) -> Generation:
    """Return a text of one loop: a tenth of it is judging, of the rest a twentieth is compute."""
    clock = Clock(0.0)
    meter = Meter(clock)
    meter.start()
    meter.path.sent(1, 0.0, 0.0)
    seconds = len(tokens) / tokens_per_second
    clock.now = 0.9 * seconds
    meter.path.answered(1, clock.now, Measured(100.0, (2.0, 3.0)))
    clock.now = seconds
    meter.judged(left=False)
    meter.loop(Measured(100.0, (2.0, 3.0), positions=5), len(tokens))
    counts = Counts(
        loops=1, drafted=8, accepted=2, rejected=2, branched=1, waits=2, frames=2, sent=8, held=3
    )
    stats = meter.stats(
        counts,
        replace(FACTS, prompt_tokens=1, bytes_sent=400, bytes_received=800),
    )
    return Generation("", tuple(tokens), (), stats)


def compared(ways: Sequence[Way], **speeds: float) -> Comparison:
    """Return one prompt decoded plainly at ten tokens a second, otherwise as told or ten times as
    fast."""
    told = {way.name: generation(speeds.get(way.name, 100.0)) for way in ways}
    return Comparison("hello", {**told, PLAIN.name: generation(10.0)})
