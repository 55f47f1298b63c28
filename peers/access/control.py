"""What a peer grants to which client: `peers.access.limits` applied to links and sessions.

All refusals are counted by their kind.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from peers.access.limits import AccessLimits, Bans, Holdings, RecentDemand, network_of
from peers.compute.cache_budget import MAX_RETRY_MS, MIN_RETRY_MS, CacheFull
from peers.faults import SessionFault
from swarm.network.links.link import Link
from swarm.util.rates import TokenBuckets
from swarm.wire.faults import FaultCode

log = logging.getLogger(__name__)

CLIENT, ADDRESS = 0, 1  # a link counts for both; the limits of each have this index


class LimitReached(SessionFault):
    """A limit is reached; ``kind`` names it."""

    def __init__(self, kind: str, text: str, wait_s: float = 0.0) -> None:
        retry_ms = min(max(wait_s * 1e3, MIN_RETRY_MS), MAX_RETRY_MS)
        super().__init__(
            FaultCode.BUSY, f"{text}; try again later, or another peer", retry_ms=retry_ms
        )
        self.kind = kind


class AccessControl:
    """Decides which links one peer serves, how fast, and which sessions it opens.

    ``enter``/``leave`` for links and ``reserve``/``release`` for sessions come in pairs.

    Args:
        clock: seconds, monotonic.
        sleep: waits for seconds.

    Attributes:
        refusals: since the start, by kind.
    """

    def __init__(
        self,
        limits: AccessLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.limits = limits = limits or AccessLimits()
        self.refusals: Counter[str] = Counter()
        self._clock = clock
        self._sleep = sleep
        self._holdings = Holdings()
        self._links = 0
        self._sessions = 0
        self._clients: dict[Link, int] = {}  # for how many clients a gateway asks
        self._wanting = RecentDemand(limits.want_s, clock), RecentDemand(limits.want_s, clock)
        self._openings = (
            TokenBuckets(limits.openings, clock),
            TokenBuckets(limits.openings_of_address, clock),
        )
        self._messages = TokenBuckets(limits.messages, clock)
        self._nbytes = TokenBuckets(limits.nbytes, clock)
        self._forwarded = TokenBuckets(limits.forwarded, clock)
        self._forwarded_nbytes = TokenBuckets(limits.forwarded_nbytes, clock)
        self._dials = TokenBuckets(limits.failed_dials, clock)
        self._violations = (
            TokenBuckets(limits.violations, clock),
            TokenBuckets(limits.violations_of_address, clock),
        )
        self._bans = Bans(limits.ban_s, limits.longest_ban_s, clock)

    # Links.

    def enter(self, link: Link) -> bool:
        """Whether the link may be served. If so, it is counted until `leave`."""
        names, limits = keys_of(link), self.limits
        if self.banned(link):
            return self._turned_away("banned")
        full = any(self._holdings.of(key).links >= limits.links_each[kind] for kind, key in names)
        if full or self._links >= limits.links:
            return self._turned_away("links")
        self._links += 1
        for _, key in names:
            self._holdings.add(key, links=1)
        return True

    def leave(self, link: Link) -> None:
        """Stop counting a link that was entered."""
        self._links -= 1
        self._clients.pop(link, None)
        for _, key in keys_of(link):
            self._holdings.add(key, links=-1)

    def speaks_for(self, link: Link, clients: int) -> None:
        """Record that an entered link belongs to a gateway that asks for that many clients.

        It is believed up to a limit.
        """
        self._clients[link] = min(clients, self.limits.gateway_clients)

    def _times(self, link: Link, kind: int) -> float:
        """Return the multiple of the usual limits that is granted over a link.

        The limits of an address are never lower than those of the gateway behind it.
        """
        clients = self._clients.get(link, 1)
        if kind == CLIENT:
            return clients
        usual = self.limits.openings_of_address.per_second / self.limits.openings.per_second
        return max(1.0, clients / usual)

    async def pace(self, link: Link, nbytes: int, forwarded: bool) -> None:
        """Count a message that was read, and wait if its sender is too fast.

        Args:
            nbytes: of the message.
            forwarded: the message is a frame that a peer sends on for one of its clients.
        """
        _, key = keys_of(link)[0]
        if forwarded:
            wait_s = max(self._forwarded.draw(key), self._forwarded_nbytes.draw(key, nbytes))
        else:
            part = 1 / self._clients.get(link, 1)
            wait_s = max(self._messages.draw(key, part), self._nbytes.draw(key, nbytes * part))
        if wait_s:
            self.refusals["paced"] += 1
            await self._sleep(min(wait_s, self.limits.longest_pause_s))

    # Sessions.

    async def opening(self, link: Link) -> None:
        """Count a request to open a session; a client that asks too often has to wait.

        A request counts against the client and its address together, or against neither. So a
        client neither pays nor is blamed for what others of its address have used up.

        Raises:
            LimitReached: if sessions are opened too fast.
        """
        names = keys_of(link)
        parts = {kind: 1 / self._times(link, kind) for kind, _ in names}
        waits_s = {kind: self._openings[kind].wait_s(key, parts[kind]) for kind, key in names}
        if wait_s := max(waits_s.values()):
            for kind, key in names:
                if waits_s[kind]:
                    self._violated(kind, key, self.limits.flood_weight)
            refused = self.refuse("openings", "sessions are opened too fast", wait_s)
            await self._sleep(min(wait_s, self.limits.longest_pause_s))
            raise refused
        for kind, key in names:
            self._openings[kind].take(key, parts[kind])

    def check(self, link: Link, tokens: int, total_tokens: int) -> None:
        """Check whether a session with this much cache may be opened.

        A client that is alone may have all of the cache. While others want room, each client is
        limited to its share.

        Args:
            total_tokens: of the cache.

        Raises:
            LimitReached: if not.
        """
        limits = self.limits
        if self._sessions >= limits.sessions:
            raise self.refuse("sessions", f"{limits.sessions} sessions are open")
        for kind, key in keys_of(link):
            held, share = self._holdings.of(key), limits.cache_share[kind]
            most = int(limits.sessions_each[kind] * self._times(link, kind))
            if held.sessions >= most:
                raise self.refuse("sessions", f"{most} sessions of yours are open")
            if held.tokens + tokens > share * total_tokens and self._wanting[kind].others_than(key):
                raise self.refuse(
                    "cache", f"others want room: reserve {int(share * total_tokens)} tokens at most"
                )

    def reserve(self, link: Link, tokens: int) -> None:
        """Count an open session until `release`."""
        self._sessions += 1
        for kind, key in keys_of(link):
            self._holdings.add(key, sessions=1, tokens=tokens)
            self._wanting[kind].remove(key)

    def release(self, link: Link, tokens: int) -> None:
        """Stop counting a session."""
        self._sessions -= 1
        for _, key in keys_of(link):
            self._holdings.add(key, sessions=-1, tokens=-tokens)

    def no_room(self, link: Link, error: CacheFull) -> LimitReached:
        """Record that a client wants room that others hold. Return what to tell it."""
        for kind, key in keys_of(link):
            if error.retry_ms is not None:
                self._wanting[kind].add(key)
        refused = self.refuse("cache", "")
        refused.text, refused.retry_ms = str(error), error.retry_ms
        return refused

    def over_share(self, link: Link, total_tokens: int) -> bool:
        """Whether a client or its address holds more than its share while others want room."""
        return any(
            self._holdings.of(key).tokens > self.limits.cache_share[kind] * total_tokens
            and self._wanting[kind].others_than(key)
            for kind, key in keys_of(link)
        )

    # Violations.

    def dial(self, link: Link) -> float:
        """Count a dial on behalf of a client.

        Returns 0, or the seconds until the client may ask again if too many of its dials failed.
        """
        key = keys_of(link)[0][1]
        if self._dials.take(key):
            return 0.0
        self.refusals["dials"] += 1
        return self._dials.wait_s(key)

    def dialled(self, link: Link) -> None:
        """Take back the last `dial` of a client: the peer answered."""
        self._dials.give_back(keys_of(link)[0][1])

    def violated(self, link: Link, weight: float = 1.0) -> None:
        """Count a violation of the protocol; a repeated one bans the client and its address."""
        for kind, key in keys_of(link):
            self._violated(kind, key, weight)

    def _violated(self, kind: int, key: str, weight: float) -> None:
        if not self._violations[kind].take(key, weight):
            self._violations[kind].forget(key)
            seconds = self._bans.ban(key)
            facts = {"banned": key, "banned_s": seconds}
            log.warning(
                "%s broke the protocol too often: banned for %.0f s",
                key,
                seconds,
                extra=facts,
            )

    def banned(self, link: Link) -> bool:
        """Whether the client or its address is banned now."""
        return any(self._bans.left_s(key) for _, key in keys_of(link))

    @property
    def bans(self) -> int:
        """The number of clients and addresses that are banned now."""
        return self._bans.active

    def refuse(self, kind: str, text: str, wait_s: float = 0.0) -> LimitReached:
        """Count a refusal, and return what to raise."""
        self.refusals[kind] += 1
        return LimitReached(kind, text, wait_s)

    def faulted(self, code: FaultCode, link: Link | None) -> None:
        """Count a fault that breaks the protocol.

        Args:
            link: of the member that broke it; None if that is not known.
        """
        if code.is_violation:
            self.refusals[code.value] += 1
            if link is not None:
                self.violated(link)

    def _turned_away(self, kind: str) -> bool:
        self.refusals[kind] += 1
        return False


def keys_of(link: Link) -> list[tuple[int, str]]:
    """Return the keys that a link counts for: the proven id of its client, and its address.

    A relayed link has the address of its relay, which says nothing about the client.
    """
    client, address = (CLIENT, link.peer_id), (ADDRESS, network_of(link.address))
    if not link.peer_id:
        return [address]
    return [client] if link.relayed else [client, address]


def summary(before: Counter[str], now: Counter[str]) -> str:
    """Return what was refused in between, the most frequent first; "" if nothing was."""
    return ", ".join(f"{count} {kind}" for kind, count in (now - before).most_common())
