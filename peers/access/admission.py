"""What a peer grants to whom: `peers.access.limits` applied to links and sessions.

The handler asks here. All refusals are counted by their kind.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from peers.access.limits import Bans, Holdings, Limits, Wanting, network_of
from peers.compute.cache_budget import MAX_RETRY_MS, MIN_RETRY_MS, CacheFull
from peers.faults import SessionFault
from swarm.network.links.link import Link
from swarm.util.rates import TokenBuckets
from swarm.wire.messages import FaultCode

LONGEST_PAUSE_S = 1.0  # of a link that is read too fast: its own signs of life have to be answered

log = logging.getLogger(__name__)

CLIENT, ADDRESS = 0, 1  # by which a link is counted, and where the limits of each stand
FLOOD = 0.02  # what an opening too many counts, where a broken message counts 1


class Refused(SessionFault):
    """A limit is reached. ``kind``: which."""

    def __init__(self, kind: str, text: str, wait_s: float = 0.0) -> None:
        retry_ms = min(max(wait_s * 1e3, MIN_RETRY_MS), MAX_RETRY_MS)
        super().__init__(
            FaultCode.BUSY, f"{text}; try again later, or another peer", retry_ms=retry_ms
        )
        self.kind = kind


class Admission:
    """One peer's door.

    ``enter``/``leave`` for links and ``reserve``/``release`` for sessions come in pairs.

    Attributes:
        refusals: how often what was refused, since the start.
    """

    def __init__(
        self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits = limits or Limits()
        self.refusals: Counter[str] = Counter()
        self._clock = clock
        self._holdings, self._links, self._sessions = Holdings(), 0, 0
        self._clients: dict[Link, int] = {}  # for how many a gateway asks, if it has said so
        self._wanting = Wanting(limits.want_s, clock), Wanting(limits.want_s, clock)
        self._openings = (
            TokenBuckets(limits.openings, clock),
            TokenBuckets(limits.openings_of_address, clock),
        )
        self._messages, self._nbytes = (
            TokenBuckets(limits.messages, clock),
            TokenBuckets(limits.nbytes, clock),
        )
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
        names, limits = who(link), self.limits
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
        self._links -= 1
        self._clients.pop(link, None)
        for _, key in who(link):
            self._holdings.add(key, links=-1)

    def speaks_for(self, link: Link, clients: int) -> None:
        """A link that was entered is a gateway's, which asks for so many clients: it is believed up
        to a limit."""
        self._clients[link] = min(clients, self.limits.gateway_clients)

    def _times(self, link: Link, kind: int) -> float:
        """How many times what one client, or one address, may ask is granted over a link.

        An address may do no less than the gateway behind it.
        """
        clients = self._clients.get(link, 1)
        if kind == CLIENT:
            return clients
        usual = self.limits.openings_of_address.per_second / self.limits.openings.per_second
        return max(1.0, clients / usual)

    async def pace(self, link: Link, nbytes: int, forwarded: bool) -> None:
        """Take note of a message that was read, and before the next one wait as long as its sender
        is too fast.

        Args:
            forwarded: it is a frame of a session that others have opened: a peer sends for all of
                its clients.
        """
        _, key = who(link)[0]
        if forwarded:
            wait_s = max(self._forwarded.draw(key), self._forwarded_nbytes.draw(key, nbytes))
        else:
            part = 1 / self._clients.get(link, 1)
            wait_s = max(self._messages.draw(key, part), self._nbytes.draw(key, nbytes * part))
        if wait_s:
            self.refusals["paced"] += 1
            await asyncio.sleep(min(wait_s, LONGEST_PAUSE_S))

    # Sessions.

    async def opening(self, link: Link) -> None:
        """Take note that a session is asked for.

        A client that asks too often is heard the later for it.

        An opening counts against the client and its address together, or against neither: a client
        pays nothing, and is not blamed, for what others of its address have used up.

        Raises:
            Refused: if sessions are opened too fast.
        """
        names = who(link)
        parts = {kind: 1 / self._times(link, kind) for kind, _ in names}
        waits_s = {kind: self._openings[kind].wait_s(key, parts[kind]) for kind, key in names}
        if wait_s := max(waits_s.values()):
            for kind, key in names:
                if waits_s[kind]:
                    self._violated(kind, key, FLOOD)
            refused = self.refuse("openings", "sessions are opened too fast", wait_s)
            await asyncio.sleep(min(wait_s, LONGEST_PAUSE_S))
            raise refused
        for kind, key in names:
            self._openings[kind].take(key, parts[kind])

    def check(self, link: Link, tokens: int, total_tokens: int) -> None:
        """Whether a session with so much cache may be opened.

        One client alone may have everything. While others want room, nobody gets more than a share.

        Raises:
            Refused: if not.
        """
        limits = self.limits
        if self._sessions >= limits.sessions:
            raise self.refuse("sessions", f"{limits.sessions} sessions are open")
        for kind, key in who(link):
            held, share = self._holdings.of(key), limits.cache_share[kind]
            most = int(limits.sessions_each[kind] * self._times(link, kind))
            if held.sessions >= most:
                raise self.refuse("sessions", f"{most} sessions of yours are open")
            if held.tokens + tokens > share * total_tokens and self._wanting[kind].others_than(key):
                raise self.refuse(
                    "cache", f"others want room: reserve {int(share * total_tokens)} tokens at most"
                )

    def reserve(self, link: Link, tokens: int) -> None:
        """A session is open. Count it until `release`."""
        self._sessions += 1
        for kind, key in who(link):
            self._holdings.add(key, sessions=1, tokens=tokens)
            self._wanting[kind].remove(key)

    def release(self, link: Link, tokens: int) -> None:
        self._sessions -= 1
        for _, key in who(link):
            self._holdings.add(key, sessions=-1, tokens=-tokens)

    def no_room(self, link: Link, error: CacheFull) -> Refused:
        """Take note that somebody wants room that others have. Returns what to tell."""
        for kind, key in who(link):
            if error.retry_ms is not None:
                self._wanting[kind].add(key)
        refused = self.refuse("cache", "")
        refused.text, refused.retry_ms = str(error), error.retry_ms
        return refused

    def over_share(self, link: Link, total_tokens: int) -> bool:
        """Whether somebody holds more than its share while others want room."""
        return any(
            self._holdings.of(key).tokens > self.limits.cache_share[kind] * total_tokens
            and self._wanting[kind].others_than(key)
            for kind, key in who(link)
        )

    # What is not in order.

    def dial(self, link: Link) -> float:
        """A client has us dial a peer: returns 0, or the seconds until it may, if too many have
        failed."""
        key = who(link)[0][1]
        if self._dials.take(key):
            return 0.0
        self.refusals["dials"] += 1
        return self._dials.wait_s(key)

    def dialled(self, link: Link) -> None:
        """It answered: such dials are not counted."""
        self._dials.give_back(who(link)[0][1])

    def violated(self, link: Link, weight: float = 1.0) -> None:
        """Somebody broke the protocol: it is banned if it does so repeatedly."""
        for kind, key in who(link):
            self._violated(kind, key, weight)

    def _violated(self, kind: int, key: str, weight: float) -> None:
        if not self._violations[kind].take(key, weight):
            self._violations[kind].forget(key)
            seconds = self._bans.ban(key)
            who_and_how_long = {"banned": key, "banned_s": seconds}
            log.warning(
                "%s broke the protocol too often: banned for %.0f s",
                key,
                seconds,
                extra=who_and_how_long,
            )

    def banned(self, link: Link) -> bool:
        return any(self._bans.left_s(key) for _, key in who(link))

    @property
    def bans(self) -> int:
        """Clients and addresses that are banned now."""
        return self._bans.active

    def refuse(self, kind: str, text: str, wait_s: float = 0.0) -> Refused:
        """Count a refusal, and return what to raise."""
        self.refusals[kind] += 1
        return Refused(kind, text, wait_s)

    def faulted(self, code: FaultCode, link: Link | None) -> None:
        """Count a fault that breaks the protocol, also against whoever sent it, if that is
        known."""
        if code.is_violation:
            self.refusals[code.value] += 1
            if link is not None:
                self.violated(link)

    def _turned_away(self, kind: str) -> bool:
        self.refusals[kind] += 1
        return False


def who(link: Link) -> list[tuple[int, str]]:
    """By what a link is counted: the id that its client has proved, and its address.

    What comes over a relay has the relay's, which says nothing.
    """
    client, address = (CLIENT, link.peer_id), (ADDRESS, network_of(link.address))
    if not link.peer_id:
        return [address]
    return [client] if link.relayed else [client, address]


def summary(before: Counter[str], now: Counter[str]) -> str:
    """What was refused in between, the most frequent first; "" if nothing was."""
    return ", ".join(f"{count} {kind}" for kind, count in (now - before).most_common())
