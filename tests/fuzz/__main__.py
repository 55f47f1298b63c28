"""The command line: `python -m tests.fuzz codec --messages 1000000 --seed 1`."""

import hashlib
import resource
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fuzz.loop import failing, fuzz, replay, smallest  # noqa: E402
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


for _name in TARGETS:
    _bytes_command(_name)

if __name__ == "__main__":
    main()
