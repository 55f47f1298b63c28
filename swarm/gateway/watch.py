"""The swarm as the pages show it, refreshed while a page is open."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Literal

from swarm.client.pinger import Path
from swarm.client.status import ModelStatus, PeerStatus
from swarm.errors import SwarmError
from swarm.util.tasks import end, within

EVERY_S = 2.0
LOOK_TIMEOUT_S = 15.0
MAX_ROWS = 200  # peers of one model that have a row
GONE_S = 30.0  # that a peer which is no longer listed is still shown

State = Literal["online", "joining", "draining", "unreachable", "gone"]
STATES: dict[str, State] = {"online": "online", "joining": "joining", "draining": "draining"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeerRow:
    """One peer. It last answered ``seen_s`` ago; None if it never did while a page was open."""

    peer_id: str
    layers: tuple[int, int]
    state: State
    path: Path | None
    tokens_per_second: float
    free_cache_tokens: int
    dtype: str
    software: str
    rtt_ms: float | None
    seen_s: float | None


@dataclass(frozen=True)
class OtherPeers:
    """The sum over the peers that have no row."""

    peers: int
    online: int
    tokens_per_second: float  # of the online ones
    free_cache_tokens: int  # of the online ones


@dataclass(frozen=True)
class ModelView:
    """One model.

    Attributes:
        coverage: runs ``(a, b, peers)``: the number of online peers that serve each of the layers
            ``[a, b)``.
        loading: spans ``(a, b)`` that no online peer serves, and a joining peer will.
        estimated_peers: in a swarm too large to list, see `ModelStatus`.
    """

    model: str
    fingerprint: str
    model_layers: int
    coverage: tuple[tuple[int, int, int], ...]
    loading: tuple[tuple[int, int], ...]
    peers: tuple[PeerRow, ...]
    rest: OtherPeers | None
    estimated_peers: int | None


@dataclass(frozen=True)
class SwarmView:
    """The swarm at one time.

    If it could not be read, ``trouble`` says why, and the models are those read before.
    """

    models: tuple[ModelView, ...] = ()
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class PeerHistory:
    """When each peer last answered, and which peers have just vanished. No I/O."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[PeerRow, float]] = {}  # as last listed, and when
        self._answered: dict[tuple[str, str], float] = {}

    def view(self, reports: Sequence[ModelStatus], now: float) -> SwarmView:
        """Return the view at ``now``, in seconds of a monotonic clock."""
        listed = {
            (report.fingerprint, peer.peer_id): (peer, now)
            for report in reports
            for peer in report.peers
        }
        self._answered |= {key: now for key, (peer, _) in listed.items() if peer.rtt_ms is not None}
        rows = {key: (self._row(key, peer, now), now) for key, (peer, _) in listed.items()}
        vanished = {
            key: old for key, old in self._rows.items() if key not in rows and now - old[1] < GONE_S
        }
        self._rows = vanished | rows
        self._answered = {key: at for key, at in self._answered.items() if key in self._rows}
        return SwarmView(tuple(self._model(report, now) for report in reports))

    def _row(self, key: tuple[str, str], peer: PeerStatus, now: float) -> PeerRow:
        return PeerRow(
            peer.peer_id,
            peer.layers,
            "unreachable" if peer.rtt_ms is None else STATES.get(peer.state, "draining"),
            peer.path,
            peer.tokens_per_second,
            peer.free_cache_tokens,
            peer.dtype,
            peer.software,
            peer.rtt_ms,
            self._seen(key, now),
        )

    def _seen(self, key: tuple[str, str], now: float) -> float | None:
        return now - self._answered[key] if key in self._answered else None

    def _model(self, report: ModelStatus, now: float) -> ModelView:
        rows = [
            row
            if at == now
            else replace(row, state="gone", path=None, rtt_ms=None, seen_s=self._seen(key, now))
            for key, (row, at) in self._rows.items()
            if key[0] == report.fingerprint
        ]
        # Peer ids are practically random: of a large swarm, the same few peers from all layers are
        # shown each time.
        rows.sort(key=lambda row: row.peer_id[::-1])
        shown, rest = rows[:MAX_ROWS], rows[MAX_ROWS:]
        shown.sort(key=lambda row: (row.layers, row.peer_id))
        online = [row.layers for row in rows if row.state == "online"]
        return ModelView(
            report.model,
            report.fingerprint,
            report.model_layers,
            tuple(coverage(online, report.model_layers)),
            tuple(_loading(report, rows)),
            tuple(shown),
            _sum(rest) if rest else None,
            report.estimated_peers,
        )


def coverage(spans: Sequence[tuple[int, int]], model_layers: int) -> list[tuple[int, int, int]]:
    """Count the spans ``[a, b)`` that hold each layer of a model, as runs ``(a, b, count)``."""
    changes = Counter[int]()
    for first, last in spans:
        changes[first] += 1
        changes[min(last, model_layers)] -= 1
    edges = sorted({0, model_layers, *(edge for edge, change in changes.items() if change)})
    counts = accumulate(changes[edge] for edge in edges)
    return [(a, b, count) for a, b, count in zip(edges, edges[1:], counts, strict=False)]


def _loading(report: ModelStatus, rows: Sequence[PeerRow]) -> list[tuple[int, int]]:
    joining = [row.layers for row in rows if row.state == "joining"]
    spans = [(max(a, c), min(b, d)) for a, b in report.missing for c, d in joining]
    return sorted({(a, b) for a, b in spans if a < b})


def _sum(rows: Sequence[PeerRow]) -> OtherPeers:
    online = [row for row in rows if row.state == "online"]
    return OtherPeers(
        len(rows),
        len(online),
        sum(row.tokens_per_second for row in online),
        sum(row.free_cache_tokens for row in online),
    )


class Watch:
    """Reads the status of the swarm every ``every_s`` seconds, only while `views` has readers.

    Use it as an async context manager, or call `close` in the end.

    Args:
        look: reads the status; it has failed if it takes longer than ``timeout_s``.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Sequence[ModelStatus]]],
        every_s: float = EVERY_S,
        timeout_s: float = LOOK_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._history = PeerHistory()
        self._view = SwarmView()
        self._looked = asyncio.Condition()
        self._looks = 0
        self._readers = 0
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Watch":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop. Tasks that still read `views` wait for ever; cancel them."""
        if self._looking is not None:
            await end(self._looking)

    async def views(self) -> AsyncGenerator[SwarmView, None]:
        """Yield the newest view after each refresh; a slow reader misses some.

        The generator never ends by itself: close it.
        """
        self._readers += 1
        if self._looking is None or self._looking.done():
            self._looks = 0  # the last view is outdated
            self._looking = asyncio.create_task(self._run())
        try:
            read = max(0, self._looks - 1)
            while True:
                async with self._looked:
                    while self._looks <= read:
                        await self._looked.wait()
                read = self._looks
                yield self._view
        finally:
            self._readers -= 1

    async def _run(self) -> None:
        while self._readers:
            began = self._clock()
            self._view = await self._see()
            took_s = self._clock() - began
            async with self._looked:
                self._looks += 1
                self._looked.notify_all()
            # reading a large swarm is work for many nodes: at most half of the time is spent on it
            await asyncio.sleep(max(self._every_s, took_s))

    async def _see(self) -> SwarmView:
        try:
            reports = await within(self._timeout_s, self._look())
        except asyncio.TimeoutError:
            return replace(
                self._view, trouble=f"The swarm did not answer within {self._timeout_s:g} s."
            )
        except SwarmError as error:
            return replace(self._view, trouble=str(error))
        except Exception:
            log.exception("looking at the swarm failed")
            return replace(
                self._view, trouble="Reading the swarm failed; the gateway's log says why."
            )
        return self._history.view(reports, self._clock())
