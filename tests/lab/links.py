"""The way of packets between two hosts, as arithmetic: clock and chance are handed in."""

import random
from collections import deque
from dataclasses import dataclass

from swarm.errors import ConfigError

MAX_DELAY_MS = 10_000.0  # a way over a satellite takes 300: more is a mistake in the unit
# of waiting for the bandwidth: what a home router keeps; far more would be bufferbloat
MAX_QUEUE_S = 0.1


@dataclass(frozen=True)
class Link:
    """One direction between two hosts. Raises ConfigError for an impossible field.

    Args:
        delay_ms: one way, the least that a packet takes.
        jitter_ms: the most that is added to it, uniformly; order is kept, so that a dense stream
            tends to the most.
        loss: share of the packets that never arrive, each independently.
        mbit_per_s: bandwidth for IP packets with their headers; None has no limit.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    mbit_per_s: float | None = None

    def __post_init__(self) -> None:
        for field, value in (("delay_ms", self.delay_ms), ("jitter_ms", self.jitter_ms)):
            if not 0 <= value <= MAX_DELAY_MS:
                raise ConfigError(field, f"{value} is not within 0 to {MAX_DELAY_MS:g}")
        if not 0 <= self.loss <= 1:
            raise ConfigError("loss", f"{self.loss} is not a share of 0 to 1")
        if self.mbit_per_s is not None and not 0 < self.mbit_per_s < float("inf"):
            raise ConfigError(
                "mbit_per_s", f"{self.mbit_per_s} is not more than 0; None has no limit"
            )


@dataclass(frozen=True)
class Statistics:
    """Packets on a wire since it exists.

    `packets` and `bytes` count what was sent; `lost` counts those of the packets that never arrive,
    for any reason. `worst_late_ms` is the most that a packet was delivered after it was due: what
    the emulation itself adds.
    """

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    worst_late_ms: float = 0.0


class Wire:
    """One direction of a link: packets go in with `send`, and come out of `receive` in order.

    `link` may be replaced at any time; packets under way keep their time, and are not overtaken.

    Args:
        link: its behaviour.
        chance: decides about jitter and loss.
    """

    def __init__(self, link: Link, chance: random.Random) -> None:
        self.link = link
        self._chance = chance
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._free_at = self._last_due = float("-inf")
        self._is_cut = False
        self._packets = self._bytes = self._lost = 0
        self._worst_late = 0.0

    def send(self, packet: bytes, now: float) -> float | None:
        """Return when the packet is due, in seconds of ``now``'s clock; None if it gets lost."""
        self._packets += 1
        self._bytes += len(packet)
        due = self._due(len(packet), now)
        if due is None:
            self._lost += 1
        else:
            self._under_way.append((due, packet))
        return due

    def receive(self, now: float) -> list[bytes]:
        """Return the packets that are due, each once."""
        arrived = []
        while self._under_way and self._under_way[0][0] <= now:
            due, packet = self._under_way.popleft()
            self._worst_late = max(self._worst_late, now - due)
            arrived.append(packet)
        return arrived

    def cut(self) -> None:
        """Lose all packets from now on, and those under way."""
        self._is_cut = True
        self._lost += len(self._under_way)
        self._under_way.clear()
        self._free_at = self._last_due = float("-inf")  # nobody is left to wait for

    def restore(self) -> None:
        self._is_cut = False

    @property
    def statistics(self) -> Statistics:
        return Statistics(self._packets, self._bytes, self._lost, self._worst_late * 1e3)

    def _due(self, size: int, now: float) -> float | None:
        link = self.link
        if self._is_cut:
            return None
        leaves = now
        if link.mbit_per_s is not None:
            starts = max(now, self._free_at)
            if starts - now > MAX_QUEUE_S:
                return None
            leaves = self._free_at = starts + size * 8e-6 / link.mbit_per_s
        # after the queue: a packet lost far away was sent, too
        if link.loss and self._chance.random() < link.loss:
            return None
        travels = link.delay_ms
        if link.jitter_ms:
            travels += self._chance.uniform(0, link.jitter_ms)
        self._last_due = max(self._last_due, leaves + travels * 1e-3)
        return self._last_due
