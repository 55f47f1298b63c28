"""The command line of the fuzz tests: `python -m tests.fuzz codec --messages 1000000 --seed 1`."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fuzz import generations, hostile, loop, sessions  # noqa: E402
from fuzz.scripts import written  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

CORPUS = HERE / "corpus"


@click.group()
def main() -> None:
    """Run hostile bytes and hostile sessions.

    Exit with 1 if anything fails, and keep the smallest input that fails.
    """


def _seeded(name: str, what: str, count: int) -> Callable[[Any], Any]:
    def command(function: Any) -> Any:
        function = click.option(
            "--keep", default=0, help="How many of those that led furthest join the corpus."
        )(function)
        function = click.option("--seed", default=1, show_default=True)(function)
        function = click.option(
            f"--{what}", "count", default=count, show_default=True, help="How many."
        )(function)
        return main.command(name)(function)

    return command


def _bytes_command(name: str) -> None:
    def command(count: int, seed: int, keep: int) -> None:
        target = TARGETS[name]()
        report = loop.fuzz(target, count, seed)
        _print(report, seed)
        loop.keep(report, CORPUS, keep)
        for data, why in report.failures:
            least = loop.smallest(data, loop.failing(target))
            path = loop.named(CORPUS, name, least)
            path.write_bytes(least)
            print(f"{why[:300]}\n  kept in {path}")
        _end(report.failures or loop.replay(target, CORPUS))

    command.__doc__ = TARGETS[name].__doc__
    _seeded(name, "messages", 100_000)(command)


for _name in TARGETS:
    _bytes_command(_name)


@_seeded("sessions", "scripts", 1000)
def _sessions(count: int, seed: int, keep: int) -> None:
    """Play scripts of hostile clients and next peers against real peers."""
    hand = sessions.Stagehand.load()
    report = sessions.fuzz(hand, count, seed, tell=lambda report: print(report, file=sys.stderr))
    _print(report, seed)
    print(f"strangers were told: {', '.join(sorted(report.answers))}")
    for script, wrong in report.failures:
        print(f"{wrong[0][:600]}\n  kept in {_kept(sessions.shortest(hand, script))}")
    for _, script in sorted(report.pioneers, key=lambda each: -each[0])[:keep]:
        _kept(script)
    _end(report.failures or sessions.replay(hand, sorted(CORPUS.glob("sessions-*.json"))))


@_seeded("hostile", "sessions", 1000)
def _hostile(count: int, seed: int, keep: int) -> None:
    """Run hostile peers against a client's session."""
    report = hostile.fuzz(count, seed)
    _print(report, seed)
    _end(report.failures)


@_seeded("generations", "texts", 100)
def _generations(count: int, seed: int, keep: int) -> None:
    """Generate whole texts over peers that sometimes send wrong messages."""
    report = generations.fuzz(count, seed)
    _print(report, seed)
    _end(report.failures)


def _kept(script: list[Any]) -> Path:
    text = written(script)
    path = loop.named(CORPUS, "sessions", text.encode(), ".json")
    path.write_text(text)
    return path


def _print(report: object, seed: int) -> None:
    most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{report}\nseed {seed}; the process took {most_mb:.0f} MB at most")


def _end(failures: Any) -> None:
    for each in failures:
        print(str(each)[:600])
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
