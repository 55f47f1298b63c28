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

IPV6_PREFIX = 64  # bits: the owner of one IPv6 address has all of its network


@dataclass(frozen=True)
class AccessLimits:
    """Where floods begin. Ordinary clients and chains stay far below these.

    A client is known by its proven id, and by its address where it has one of its own. Many clients
    may share an address, so an address may do more.
    """

    # A gateway says for how many clients it asks, and may send and open that many times what one
    # client may, up to this. A stranger gains nothing by lying: four ids behind one address get
    # the same.
    gateway_clients: int = 4
    links: int = 1024  # open, in all
    links_each: tuple[int, int] = (32, 128)  # open: of a client, of an address
    sessions: int = 256  # open, in all
    sessions_each: tuple[int, int] = (128, 192)  # open: of a client, of an address
    # of the cache, while others want room: a client, an address
    cache_share: tuple[float, float] = (0.5, 0.75)
    # What a client holds beyond its share is lent: while others want it, sessions give way that
    # were silent, or open, for this long.
    lent_silent_s: float = 10.0
    lent_s: float = 60.0
    want_s: float = 30.0  # a client that was refused for lack of room wants it for this long
    openings: Rate = Rate(4.0, 128)  # sessions a second, of a client
    openings_of_address: Rate = Rate(16.0, 512)
    messages: Rate = Rate(1000.0, 4000)  # a second, of a client; frames that peers send on aside
    nbytes: Rate = Rate(16 << 20, 64 << 20)  # bytes a second, of the same
    # frames a second that a peer sends on for all of its clients
    forwarded: Rate = Rate(10_000.0, 20_000)
    forwarded_nbytes: Rate = Rate(256 << 20, 512 << 20)  # bytes a second, of the same
    failed_dials: Rate = Rate(10 / 60, 20)  # a second, for a client
    longest_pause_s: float = 1.0  # without reading a link: its pings have to be answered
    flood_weight: float = 0.02  # of one opening too many, where a broken message has 1
    violations: Rate = Rate(0.1, 20)  # of the protocol, of a client: more of them, and it is banned
    violations_of_address: Rate = Rate(0.5, 100)
    ban_s: float = 30.0  # the first time; every further one is twice as long
    longest_ban_s: float = 3600.0


class Bans:
    """Keys that are banned, and until when: each time twice as long as the time before."""

    def __init__(
        self,
        first_s: float,
        longest_s: float,
        clock: Callable[[], float],
        most_keys: int = MAX_KEYS,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._most = most_keys
        # until when, and how long that was
        self._until: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    @property
    def active(self) -> int:
        """How many keys are banned now."""
        now = self._clock()
        return sum(until > now for until, _ in self._until.values())

    def ban(self, key: str) -> float:
        """Ban a key; return for how many seconds."""
        _, before_s = self._until.get(key, (0.0, self._first_s / 2))
        seconds = min(2 * before_s, self._longest_s)
        self._until[key] = self._clock() + seconds, seconds
        self._until.move_to_end(key)
        if len(self._until) > self._most:
            self._until.popitem(last=False)
        return seconds

    def left_s(self, key: str) -> float:
        """Return the seconds until a key is let in again; 0 if it is not banned."""
        until, _ = self._until.get(key, (0.0, 0.0))
        return max(0.0, until - self._clock())


@dataclass
class Holding:
    """What one key has open now."""

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
        """Return what a key has open."""
        return self._held.get(key) or Holding()

    def add(self, key: str, *, links: int = 0, sessions: int = 0, tokens: int = 0) -> None:
        """Change what a key has open by these amounts."""
        before = self.of(key)
        held = Holding(before.links + links, before.sessions + sessions, before.tokens + tokens)
        if held == Holding():
            self._held.pop(key, None)
        else:
            self._held[key] = held

    def __len__(self) -> int:
        return len(self._held)


class RecentDemand:
    """Keys that were lately refused for lack of room; the last ``most_keys`` are remembered."""

    def __init__(self, for_s: float, clock: Callable[[], float], most_keys: int = 16) -> None:
        self._for_s = for_s
        self._clock = clock
        self._most = most_keys
        self._since: OrderedDict[str, float] = OrderedDict()

    def add(self, key: str) -> None:
        """Record that a key wants room now."""
        self._since[key] = self._clock()
        self._since.move_to_end(key)
        if len(self._since) > self._most:
            self._since.popitem(last=False)

    def remove(self, key: str) -> None:
        """Record that a key got room."""
        self._since.pop(key, None)

    def others_than(self, key: str) -> bool:
        """Whether another key wants room now."""
        now = self._clock()
        return any(each != key and now - since < self._for_s for each, since in self._since.items())


@functools.lru_cache(MAX_KEYS)
def network_of(address: str) -> str:
    """Return what an address counts as: an IPv4 address itself, an IPv6 one its /64 network.

    Anything else is returned as it is.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)
