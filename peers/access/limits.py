"""How much one client, one address and all together may ask of a peer, as pure counters.

Keys are strings, and clocks are handed in. What is remembered of keys is bounded, and the key that
was used least recently is forgotten first. A forgotten key begins anew, as a new key does.
"""

import functools
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from swarm.util.rates import MAX_KEYS, Rate

IPV6_PREFIX = 64  # bits: whoever has one IPv6 address has all of its network


@dataclass(frozen=True)
class Limits:
    """Where floods begin. What an ordinary client or chain does stays far below.

    A client is known by its proven id, and by its address where it has one of its own. Behind one
    address there may be many clients, so an address may do more.
    """

    # A gateway says for how many clients it asks, and may send and open so many times what one
    # client may; more than this is not believed. A stranger gets no more by saying so: to have four
    # ids behind one address gives the same.
    gateway_clients: int = 4
    links: int = 1024  # open, in all
    links_each: tuple[int, int] = (32, 128)  # open: of a client, of an address
    sessions: int = 256  # open, in all
    sessions_each: tuple[int, int] = (128, 192)  # open: of a client, of an address
    # of the cache, while others want room: a client, an address
    cache_share: tuple[float, float] = (0.5, 0.75)
    # What a client holds beyond its share is lent: while others want it, sessions give way that
    # were silent for so long, or open for so long.
    lent_silent_s: float = 10.0
    lent_s: float = 60.0
    want_s: float = 30.0  # whoever was refused for lack of room wants it for so long
    openings: Rate = Rate(4.0, 128)  # sessions a second, of a client
    openings_of_address: Rate = Rate(16.0, 512)
    messages: Rate = Rate(1000.0, 4000)  # a second, of a client; frames that peers send on aside
    nbytes: Rate = Rate(16 << 20, 64 << 20)  # bytes a second, of the same
    # frames a second that a peer sends on for all of its clients
    forwarded: Rate = Rate(10_000.0, 20_000)
    forwarded_nbytes: Rate = Rate(256 << 20, 512 << 20)  # bytes a second, of the same
    failed_dials: Rate = Rate(10 / 60, 20)  # a second, for a client
    violations: Rate = Rate(0.1, 20)  # of the protocol, of a client: more of them, and it is banned
    violations_of_address: Rate = Rate(0.5, 100)
    ban_s: float = 30.0  # the first time; every further one is twice as long
    longest_ban_s: float = 3600.0


class Bans:
    """Who is shut out, and until when: each time twice as long as the time before."""

    def __init__(
        self,
        first_s: float,
        longest_s: float,
        clock: Callable[[], float],
        most_keys: int = MAX_KEYS,
    ) -> None:
        self._first_s, self._longest_s, self._clock, self._most = (
            first_s,
            longest_s,
            clock,
            most_keys,
        )
        # until when, and how long that was
        self._until: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    @property
    def active(self) -> int:
        """How many keys are shut out now."""
        now = self._clock()
        return sum(until > now for until, _ in self._until.values())

    def ban(self, key: str) -> float:
        """Returns for how many seconds."""
        _, before_s = self._until.get(key, (0.0, self._first_s / 2))
        seconds = min(2 * before_s, self._longest_s)
        self._until[key] = self._clock() + seconds, seconds
        self._until.move_to_end(key)
        if len(self._until) > self._most:
            self._until.popitem(last=False)
        return seconds

    def left_s(self, key: str) -> float:
        """Seconds until the key is let in again; 0 if it is not shut out."""
        until, _ = self._until.get(key, (0.0, 0.0))
        return max(0.0, until - self._clock())


@dataclass
class Holding:
    """What one key has open."""

    links: int = 0
    sessions: int = 0
    tokens: int = 0  # of cache


@dataclass
class Holdings:
    """What every key has open.

    Bounded by what may be open in all: a key that holds nothing is not kept.
    """

    _held: dict[str, Holding] = field(default_factory=dict)

    def of(self, key: str) -> Holding:
        return self._held.get(key) or Holding()

    def add(self, key: str, *, links: int = 0, sessions: int = 0, tokens: int = 0) -> None:
        """Add to what a key holds, or take away from it."""
        before = self.of(key)
        held = Holding(before.links + links, before.sessions + sessions, before.tokens + tokens)
        if held == Holding():
            self._held.pop(key, None)
        else:
            self._held[key] = held

    def __len__(self) -> int:
        return len(self._held)


class Wanting:
    """Who has lately been refused for lack of room; of many only the last are remembered."""

    def __init__(self, for_s: float, clock: Callable[[], float], most_keys: int = 16) -> None:
        self._for_s, self._clock, self._most = for_s, clock, most_keys
        self._since: OrderedDict[str, float] = OrderedDict()

    def add(self, key: str) -> None:
        self._since[key] = self._clock()
        self._since.move_to_end(key)
        if len(self._since) > self._most:
            self._since.popitem(last=False)

    def remove(self, key: str) -> None:
        self._since.pop(key, None)

    def others_than(self, key: str) -> bool:
        """Whether anybody else wants room now."""
        now = self._clock()
        return any(each != key and now - since < self._for_s for each, since in self._since.items())


@functools.lru_cache(MAX_KEYS)
def network_of(address: str) -> str:
    """By what an address is counted: an IPv4 address by itself, an IPv6 one by its /64, anything
    else as it is."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)
