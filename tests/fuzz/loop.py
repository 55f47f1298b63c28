"""The coverage-guided loop: change inputs that went a new way, and keep those that do again."""

import hashlib
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from fuzz.coverage import Watched, Way
from fuzz.mutate import changed

FRESH = 0.1  # the share of new inputs; all others are changes of earlier ones
MEASURED_EVERY = 500  # inputs, of which one has its memory measured, besides all that go new ways
KEPT = 2000  # inputs at most to change
KEPT_BYTES = 1 << 16  # of each of these at most


class Target(Protocol):
    """The reader of the bytes."""

    name: str
    modules: Sequence[Any]  # whose lines are watched
    longest: int  # bytes of an input

    def seed(self, random: Random) -> bytes:
        """Return an input that is valid, or nearly so."""
        ...

    def run(self, data: bytes) -> str:
        """Read an input, and return the outcome in a word or two.

        Raise only what is a failure.
        """
        ...

    def memory(self, data: bytes) -> int:
        """Return the bytes that reading an input may take at most."""
        ...


class TooMuch(AssertionError):
    """An input that takes more memory than it may."""


@dataclass
class Report:
    """The inputs of one target, and their outcomes."""

    name: str
    inputs: int = 0
    valid: int = 0
    ways: int = 0
    slowest_s: float = 0.0  # of the thread's own time
    slowest: bytes = b""
    peak_bytes: int = 0  # of one input
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    # how many ways an input was the first to go
    pioneers: list[tuple[int, bytes]] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.inputs} inputs in {self.seconds:.0f} s, {self.valid} of them"
            f" valid, {self.ways} ways, {len(self.outcomes)} outcomes; the slowest took"
            f" {self.slowest_s * 1e3:.1f} ms ({len(self.slowest)} bytes), the largest"
            f" {self.peak_bytes / 1e6:.2f} MB of memory; {len(self.failures)} failures"
        )


def fuzz(target: Target, inputs: int, seed: int, failures: int = 10) -> Report:
    """Run inputs against a target, the same ones for the same seed, up to so many ``failures``."""
    random, report, watched = Random(seed), Report(target.name), Watched(target.modules)
    kept: list[bytes] = []
    seen: set[Way] = set()
    began = time.perf_counter()
    for data in _inputs(target, inputs, kept, random):
        report.inputs += 1
        started = time.thread_time()
        try:
            outcome: list[str] = []
            ways = watched.ways(lambda: outcome.append(target.run(data)))  # noqa: B023 (called at once)
            taken_s = time.thread_time() - started
            ways.add((outcome[0],))
            new = not ways <= seen
            if new or report.inputs % MEASURED_EVERY == 0:
                report.peak_bytes = max(report.peak_bytes, _measured(target, data))
        except Exception as error:
            report.failures.append((data, f"{type(error).__name__}: {error}"))
            if len(report.failures) == failures:
                break
            continue
        if new:
            report.pioneers.append((len(ways - seen), data))
            seen |= ways
            if len(data) <= KEPT_BYTES:
                kept.append(data)
            if len(kept) > KEPT:
                kept.pop(random.randrange(KEPT))
        report.valid += outcome[0].startswith("valid")
        report.outcomes[outcome[0]] = report.outcomes.get(outcome[0], 0) + 1
        if taken_s > report.slowest_s:
            taken_s = min(taken_s, *(_timed(target, data) for _ in range(3)))
        if taken_s > report.slowest_s:
            report.slowest_s = taken_s
            report.slowest = data
    report.ways = len(seen)
    report.seconds = time.perf_counter() - began
    return report


def _inputs(target: Target, count: int, kept: list[bytes], random: Random) -> Iterator[bytes]:
    for _ in range(count):
        if not kept or random.random() < FRESH:
            yield target.seed(random)
        else:
            recent = random.random() < 0.3
            data = (
                kept[-1 - random.randrange(min(20, len(kept)))] if recent else random.choice(kept)
            )
            yield changed(data, kept, random)[: target.longest]


def _timed(target: Target, data: bytes) -> float:
    """Return the seconds of our thread's own time in a second run.

    The first run may have paid for a garbage collection.
    """
    started = time.thread_time()
    target.run(data)
    return time.thread_time() - started


def _measured(target: Target, data: bytes) -> int:
    """Return the peak of memory while an input is read."""
    tracemalloc.start()
    try:
        target.run(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > target.memory(data):
        raise TooMuch(
            f"{peak} bytes of memory for {len(data)} bytes, {target.memory(data)} are allowed"
        )
    return peak


def keep(report: Report, folder: Path, count: int, longest: int = 1200) -> None:
    """Add the inputs that led furthest to the corpus."""
    short = [each for each in report.pioneers if len(each[1]) <= longest]
    for _, data in sorted(short, key=lambda each: -each[0])[:count]:
        named(folder, report.name, data).write_bytes(data)


def named(folder: Path, name: str, data: bytes, ending: str = "") -> Path:
    """Return the path of an input in the corpus."""
    return folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}{ending}"


def smallest(data: bytes, fails: Callable[[bytes], bool], tries: int = 2000) -> bytes:
    """Return a part of ``data`` that still fails, with as much taken out as possible."""
    piece = len(data) // 2
    while piece and tries:
        at = 0
        while at < len(data) and tries:
            tries -= 1
            less = data[:at] + data[at + piece :]
            if fails(less):
                data = less
            else:
                at += piece
        piece //= 2
    return data


def failing(target: Target) -> Callable[[bytes], bool]:
    """Return a function that tells whether an input fails as in `fuzz`."""

    def fails(data: bytes) -> bool:
        try:
            target.run(data)
            _measured(target, data)
        except Exception:
            return True
        return False

    return fails


def replay(target: Target, folder: Path) -> list[Path]:
    """Return the inputs in the corpus that still fail."""
    fails = failing(target)
    return [path for path in sorted(folder.glob(f"{target.name}-*")) if fails(path.read_bytes())]
