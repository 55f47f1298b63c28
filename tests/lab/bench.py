"""The laboratory's benchmark: ``make bench``.

It runs ``python tests/lab/bench.py [--out FOLDER] [--only NAME ...]``. Every ratio is taken side by
side: each prompt in all ways, on the same swarm, before the next prompt. Nothing is asserted. The
figures go to FOLDER as JSON, as Markdown, and as pictures.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from lab.drafts import drafts
from lab.ground import Ground, ground
from lab.head_cost import head_cost
from lab.internet import Internet, congestion_control
from lab.links import Link
from lab.report import write_report
from lab.sizes import sizes
from swarm.bench.ways import ADAPTIVE, BRANCHES, PLAIN, STREAMING, Way, window_of

PEERS, DELAYS_MS = (2, 4, 8), (5.0, 20.0, 50.0)
# peers and delay where more windows and prompts are tried
THOROUGH = {(4, 20.0), (4, 50.0), (8, 50.0)}
PROMPTS, MORE_PROMPTS = 3, 5
NEW_TOKENS, PLAIN_TOKENS = 64, 16
SESSIONS = (1, 4, 16)
SESSION_TOKENS = 48
FEW: tuple[Way, ...] = (PLAIN, window_of(8), window_of(16), STREAMING, BRANCHES, ADAPTIVE)
MANY: tuple[Way, ...] = (PLAIN, *map(window_of, (8, 16, 24)), STREAMING, BRANCHES, ADAPTIVE)
WEATHERS = {
    "5 ms jitter": {"jitter_ms": 5.0},
    "1 % loss": {"loss": 0.01},
    "5 ms jitter, 1 % loss": {"jitter_ms": 5.0, "loss": 0.01},
    "20 Mbit/s": {"mbit_per_s": 20.0},
}
WEATHER_PEERS, WEATHER_MS = 4, 20.0
SESSION_PEERS = 4


@dataclass
class Results:
    """The figures of each section, saved after every step: an interrupted run keeps them."""

    folder: Path
    facts: dict[str, Any]
    matrix: list[dict[str, Any]]
    weather: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    sizes: list[dict[str, Any]]
    draft: list[dict[str, Any]]
    head: list[dict[str, Any]]

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        everything = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / "results.json").write_text(json.dumps(everything, indent=1) + "\n")


async def matrix(results: Results, emulated: bool) -> None:
    """Measure the speed over numbers of peers and delays."""
    for peers in PEERS:
        async with _swarm(peers, emulated) as swarm_of:
            for delay_ms in DELAYS_MS:
                swarm = await swarm_of(Link(delay_ms=delay_ms))
                thorough = (peers, delay_ms) in THOROUGH
                cell = await _compare(
                    swarm, MANY if thorough else FEW, MORE_PROMPTS if thorough else PROMPTS
                )
                results.matrix.append({"peers": peers, "delay_ms": delay_ms, **cell})
                _tell(results, f"{peers} peers, {delay_ms:g} ms", cell)


async def weather(results: Results, emulated: bool) -> None:
    """Measure the effect of jitter, loss and thin links."""
    if not emulated:
        return
    async with ground(WEATHER_PEERS) as swarm:
        for name, changes in {"clear": {}, **WEATHERS}.items():
            swarm.set_links(Link(delay_ms=WEATHER_MS, **changes))
            cell = await _compare(swarm, (PLAIN, window_of(16), STREAMING, BRANCHES), PROMPTS)
            results.weather.append({"weather": name, **cell})
            _tell(results, name, cell)


async def sessions(results: Results, emulated: bool) -> None:
    """Measure the speed of many sessions, all together and each of them."""
    async with _swarm(SESSION_PEERS, emulated) as swarm_of:
        for delay_ms in (0.0, WEATHER_MS):
            swarm = await swarm_of(Link(delay_ms=delay_ms))
            for way in (PLAIN, BRANCHES):
                for count in SESSIONS:
                    reached = await swarm.ask(
                        "side_by_side",
                        way=asdict(way),
                        sessions=count,
                        max_new_tokens=SESSION_TOKENS,
                    )
                    results.sessions.append(
                        {"way": way.name, "sessions": count, "delay_ms": delay_ms, **reached}
                    )
                    results.save()
                    print(
                        f"{way.name}, {count} sessions, {delay_ms:g} ms:"
                        f" {reached['tokens_per_second']:.0f} tokens/s"
                    )


async def real_sizes(results: Results, emulated: bool) -> None:
    """Measure what a client of the size of published models reaches, as before and now."""
    async for told in sizes():
        results.sizes.append(told)
        results.save()


async def draft_models(results: Results, emulated: bool) -> None:
    """Measure a draft model of 0.6B in every dtype, and beside a head that judges."""
    async for row in drafts():
        results.draft.append(row)
        results.save()
        print(", ".join(f"{name} {_short(value)}" for name, value in row.items()), flush=True)


def _short(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else f"{value}"


async def head(results: Results, emulated: bool) -> None:
    """Measure the judging of frames with a real size of head."""
    results.head = head_cost()
    results.save()


SECTIONS: dict[str, Callable[[Results, bool], Awaitable[None]]] = {
    "matrix": matrix,
    "weather": weather,
    "sessions": sessions,
    "head": head,
    "sizes": real_sizes,
    "draft": draft_models,
}


async def _compare(swarm: Ground, ways: tuple[Way, ...], prompts: int) -> dict[str, Any]:
    answer = await swarm.ask(
        "compare",
        ways=[asdict(way) for way in ways],
        prompts=prompts,
        max_new_tokens=NEW_TOKENS,
        plain_tokens=PLAIN_TOKENS,
    )
    return {**answer, "prompts": prompts, "carrier_late_ms": swarm.lateness_ms()}


class _swarm:
    """Start a swarm of ``peers``; the function that it yields takes a link, and returns the ground.

    Without an emulated internet every delay needs a swarm of its own.
    """

    def __init__(self, peers: int, emulated: bool) -> None:
        self._peers = peers
        self._emulated = emulated
        self._open: Any = None

    async def __aenter__(self) -> Callable[[Link], Awaitable[Ground]]:
        if self._emulated:
            await self._start(None)
        return self._with

    async def _with(self, link: Link) -> Ground:
        if self._emulated:
            self._ground.set_links(link)
        else:
            await self.__aexit__()
            await self._start(link.delay_ms)
        return self._ground

    async def _start(self, link_ms: float | None) -> None:
        self._open = ground(self._peers, link_ms)
        self._ground = await self._open.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        if self._open is not None:
            await self._open.__aexit__(None, None, None)
            self._open = None


def _tell(results: Results, name: str, cell: dict[str, Any]) -> None:
    results.save()
    rows = "  ".join(f"{row['way']} {row['speedup']:.2f}x" for row in cell["figures"][1:])
    print(f"{name}: {rows}", flush=True)


def _facts(emulated: bool) -> dict[str, Any]:
    return {
        "emulated": "an internet of network namespaces" if emulated else "delays in the link layer",
        "tcp": congestion_control() if emulated else "loopback",
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


async def run(folder: Path, only: list[str]) -> None:
    """Run all sections, or some."""
    impossible = Internet.possible()
    if impossible:
        print(
            f"{impossible} Members hold back their own messages instead: no jitter, loss or"
            " bandwidth."
        )
    results = Results(folder, _facts(not impossible), [], [], [], [], [], [])
    started = time.perf_counter()
    for name, section in SECTIONS.items():
        if not only or name in only:
            await section(results, not impossible)
    results.facts["minutes"] = round((time.perf_counter() - started) / 60, 1)
    results.save()
    write_report(folder)
    print(f"{results.facts['minutes']} minutes; see {folder / 'report.md'}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"))
    parser.add_argument("--only", nargs="*", default=[], choices=SECTIONS)
    args = parser.parse_args()
    asyncio.run(run(args.out, args.only))


if __name__ == "__main__":
    main()
