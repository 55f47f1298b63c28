"""The command line: `python -m tests.fuzz codec --messages 1000000 --seed 1`."""

import hashlib
import resource
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fuzz import sessions  # noqa: E402
from fuzz.loop import failing, fuzz, replay, smallest  # noqa: E402
from fuzz.scripts import written  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

CORPUS = HERE / "corpus"


@click.group()
def main() -> None:
    """Hostile bytes and hostile sessions. Exits with 1 if anything fails, and keeps the smallest input that does."""


def _bytes_command(name: str) -> None:
    @main.command(name, help=TARGETS[name].__doc__)
    @click.option("--messages", default=100_000, show_default=True, help="How many.")
    @click.option("--seed", default=1, show_default=True, help="The same seed gives the same messages.")
    def command(messages: int, seed: int) -> None:
        target = TARGETS[name]()
        report = fuzz(target, messages, seed)
        print(report)
        print(f"seed {seed}; the process took {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB at most")
        for data, why in report.failures:
            least = smallest(data, failing(target))
            path = CORPUS / f"{name}-{hashlib.sha256(least).hexdigest()[:12]}"
            path.write_bytes(least)
            print(f"{why[:300]}\n  kept in {path}")
        still = replay(target, CORPUS)
        if report.failures or still:
            sys.exit(1)


@main.command("sessions")
@click.option("--scripts", default=1000, show_default=True, help="How many.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same scripts.")
def _sessions(scripts: int, seed: int) -> None:
    """Scripts of hostile clients and peers against real peers."""
    hand = sessions.Stagehand.load()
    report = sessions.fuzz(hand, scripts, seed)
    print(report)
    print(f"seed {seed}; strangers were told: {', '.join(sorted(report.answers))}")
    for script, wrong in report.failures:
        text = written(sessions.shortest(hand, script))
        path = CORPUS / f"sessions-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        path.write_text(text)
        print(f"{wrong[0][:600]}\n  kept in {path}")
    if report.failures or sessions.replay(hand, sorted(CORPUS.glob("sessions-*.json"))):
        sys.exit(1)


for _name in TARGETS:
    _bytes_command(_name)

if __name__ == "__main__":
    main()
