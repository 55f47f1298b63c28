"""Thousands of scripts against real peers, guided by the lines of the peer that they reach."""

import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch

from fuzz.arena import Arena, reference, run
from fuzz.coverage import Watched, Way
from fuzz.scripts import Author, Script, altered, play
from helpers.loopback import tiny_checkpoint
from peers.compute import history
from peers.sessions import downstream, handler, inbox, next_links, replay, session
from swarm.model.span import Span
from swarm.network.links import replica_feed
from swarm.wire import token_tree

MODULES = (
    handler,
    history,
    inbox,
    next_links,
    downstream,
    replay,
    session,
    replica_feed,
    token_tree,
)
FRESH = 0.4  # the share of scripts that are made anew
KEPT = 500  # scripts at most, that changes are made to


@dataclass
class Report:
    """The scripts and their outcomes."""

    scripts: int = 0
    steps: int = 0
    ways: int = 0
    answers: set[str] = field(default_factory=set)  # that strangers were given
    slowest_s: float = 0.0
    seconds: float = 0.0
    memory_mb: tuple[float, float] = (0.0, 0.0)  # after a hundredth of the scripts, and in the end
    failures: list[tuple[Script, list[str]]] = field(default_factory=list)
    # how many ways a script was the first to go
    pioneers: list[tuple[int, Script]] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"sessions: {self.scripts} scripts of {self.steps} steps in {self.seconds:.0f} s,"
            f" {self.ways} ways, {len(self.answers)} answers; the slowest took {self.slowest_s:.1f}"
            f" s; memory {self.memory_mb[0]:.0f} MB after a hundredth, {self.memory_mb[1]:.0f} MB"
            f" in the end; {len(self.failures)} failures"
        )


class Stagehand:
    """Holds the model that all scripts share, and plays them one by one."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.reference = reference(span)
        self.kinds: set[str] = set()

    @classmethod
    def load(cls) -> "Stagehand":
        torch.set_num_threads(1)
        with TemporaryDirectory() as folder:
            return cls(Span.load(tiny_checkpoint(Path(folder)), 0, 4))

    def play(self, script: Script) -> list[str]:
        async def work() -> list[str]:
            arena = Arena(self.span, self.reference)
            failures = await play(script, arena)
            self.kinds = arena.kinds
            return failures

        return run(work)


def fuzz(
    hand: Stagehand,
    scripts: int,
    seed: int,
    failures: int = 5,
    tell: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Play scripts up to so many ``failures``, and report after each tenth of them.

    The seed does not decide how threads alternate.
    """
    random, report, watched = Random(seed), Report(), Watched(MODULES, pairs=False)
    kept: list[Script] = []
    seen: set[Way] = set()
    began = time.perf_counter()
    while report.scripts < scripts and len(report.failures) < failures:
        fresh = not kept or random.random() < FRESH
        script = Author(random).script() if fresh else altered(random.choice(kept), kept, random)
        started = time.perf_counter()
        wrong: list[str] = []
        ways = watched.ways(lambda: wrong.extend(hand.play(script)))  # noqa: B023 (called at once)
        report.slowest_s = max(report.slowest_s, time.perf_counter() - started)
        report.scripts += 1
        report.steps += len(script)
        if wrong:
            report.failures.append((script, wrong))
        ways |= {(kind,) for kind in hand.kinds}
        report.answers |= hand.kinds
        if not ways <= seen:
            report.pioneers.append((len(ways - seen), script))
            seen |= ways
            kept.append(script)
            if len(kept) > KEPT:
                kept.pop(random.randrange(KEPT))
        if report.scripts == max(1, scripts // 100):
            report.memory_mb = (_memory_mb(), 0.0)
        report.ways = len(seen)
        report.seconds = time.perf_counter() - began
        if report.scripts % max(1, scripts // 10) == 0:
            tell(report)
    report.memory_mb = (report.memory_mb[0], _memory_mb())
    return report


def shortest(hand: Stagehand, script: Script, tries: int = 60) -> Script:
    """Return the script without the steps that its failure does not need."""
    piece = len(script) // 2
    while piece and tries:
        at = 0
        while at < len(script) and tries:
            tries -= 1
            less = script[:at] + script[at + piece :]
            if less and hand.play(less):
                script = less
            else:
                at += piece
        piece //= 2
    return script


def replay(hand: Stagehand, paths: Sequence[Path]) -> list[tuple[Path, list[str]]]:
    """Return the scripts of the corpus that still fail, and how."""
    played = [(path, hand.play(json.loads(path.read_text()))) for path in paths]
    return [(path, wrong) for path, wrong in played if wrong]


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
