"""``swarm bench --drafts``: every source of drafts, measured side by side on one chain.

A client has one draft model, so there is a client for each, one after the other. Each decodes
plainly, too: its speedups are over what the same minutes gave.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swarm.bench.command import BenchSettings, measure
from swarm.bench.compare import Comparison
from swarm.bench.figures import WayFigures, figures
from swarm.bench.ways import PLAIN, Way
from swarm.outputs import Compute

COPIES = Way("copies")  # as clients do by default


@dataclass(frozen=True)
class ClientFigures:
    """What one client has decoded: each prompt in each of its ways, one of which is the plain."""

    ways: tuple[Way, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def compute(self) -> Compute:
        return self.comparisons[0].plain.stats.compute

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of work of the prompts, in their order."""
        return tuple(dict.fromkeys(comparison.kind for comparison in self.comparisons))

    def rows(self, kind: str | None = None) -> Iterator[WayFigures]:
        """Yield the figures of each way, over the prompts of one kind or all."""
        chosen = [each for each in self.comparisons if kind in (None, each.kind)]
        for way in self.ways:
            yield figures(chosen, way)


@dataclass(frozen=True)
class DraftsReport:
    """What all clients have decoded. The first one's plain decoding stands for all."""

    clients: tuple[ClientFigures, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of work of the prompts, in their order."""
        return self.clients[0].kinds

    def rows(self, kind: str | None = None) -> list[WayFigures]:
        """Return the figures of plain decoding and of every source, over one kind or all."""
        first, *others = self.clients
        rows = [*first.rows(kind)]
        for client in others:
            rows += [row for row in client.rows(kind) if row.way != PLAIN.name]
        return rows

    @property
    def draft_errors(self) -> dict[str, str]:
        """Why a source was not asked any more, by its way."""
        return {
            way: generation.stats.draft_error
            for client in self.clients
            for comparison in client.comparisons
            for way, generation in comparison.ways.items()
            if generation.stats.draft_error is not None
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "ways": [row.as_dict() for row in self.rows()],
            "kinds": {kind: [row.as_dict() for row in self.rows(kind)] for kind in self.kinds},
            "clients": [
                {
                    "compute": vars(client.compute),
                    "prompts": [comparison.as_dict() for comparison in client.comparisons],
                }
                for client in self.clients
            ],
        }


def ways_from(draft: str | None, name: str, copies: bool) -> tuple[Way, ...]:
    """Return the ways of one client: plain decoding, and each source that it has.

    Args:
        name: what the draft is called in the report.
        copies: whether copies of earlier text are a source, too.
    """
    if draft is None:
        return (PLAIN, COPIES) if copies else (PLAIN,)
    alone = Way(name, {"lookup": False})
    return (PLAIN, alone, Way(f"{name} and copies")) if copies else (PLAIN, alone)


def names_of(drafts: Sequence[str]) -> list[str]:
    """Return a short name for each draft: its folder's, or all of it where two would be alike."""
    short = [Path(draft).name or draft for draft in drafts]
    return [
        name if short.count(name) == 1 else draft for name, draft in zip(short, drafts, strict=True)
    ]


async def measure_drafts(
    settings: BenchSettings, drafts: Sequence[str], *, quiet: bool = False
) -> DraftsReport:
    """Decode all prompts with one source after the other, on the peers of the first chain.

    Args:
        settings: `lookup` False leaves copies out; its `draft` is not used.

    Raises:
        SwarmError: what `SwarmClient` raises.
    """
    copies = settings.lookup is not False
    peers: Collection[str] = ()
    clients: list[ClientFigures] = []
    for draft, name in zip((None, *drafts), ("", *names_of(drafts)), strict=True):
        ways = ways_from(draft, name, copies)
        one = replace(settings, draft=draft)
        comparisons = await measure(one, ways, peers=peers, quiet=quiet)
        peers = peers or {stop.peer_id for stop in comparisons[0].plain.route}
        clients.append(ClientFigures(ways, tuple(comparisons)))
    return DraftsReport(tuple(clients))
