"""The peers that stand by in one session, and how far each has come: a book without I/O, to which
time comes with every event.

A *spare* stands by for one *member* of the chain: it serves the same layers, is fed what that one
is fed, by the same *feeder* (the peer before, or the client), and would send to the same peer.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic

from swarm.chain.events import Event, Lost
from swarm.chain.members import P
from swarm.wire.messages import Fault, Hop, Opened, Progress, Rerouted

SEEK_S = 10.0  # between two searches for a spare of the same layers
CATCH_UP_S = 60.0  # a spare that is not up to date for this long is left
SILENCE_S = 5.0  # a spare that was not up to date for this long may hang


@dataclass(eq=False)
class Spare(Generic[P]):
    """A peer that stands by.

    Attributes:
        link: the peer.
        member: the id of the peer of the chain that it stands by for.
        feeder: who sends it everything: the peer before the member; None for the client.
        onward: where it would send its outputs; None for the client.
        since: when it was up to date last, or began.
        opened: the session is open there.
        taps: it tells outputs of its layers on request.
        fed: its feeder was told to feed it.
        reaches: it has a link to its onward peer, as far as it has told.
        ready: it holds what was answered lately.
        failure: why it cannot stand by any more; empty if it can.
        asked: the serials that were answered when it was asked the last two times.
        unsure: a message to it, or about it to its feeder, is on its way out.
    """

    link: P
    member: str
    feeder: P | None
    onward: Hop | None
    since: float
    opened: bool = False
    taps: bool = False
    fed: bool = False
    reaches: bool = True
    ready: bool = False
    failure: str = ""
    asked: tuple[int, int] = (0, 0)
    unsure: bool = False

    def could_step_in(self, now: float, broken: Collection[str] = ()) -> bool:
        """Return whether it could take the member's place now. It need not reach an onward peer
        that is one of those that failed."""
        up_to_date = self.ready and not self.failure and now - self.since < SILENCE_S
        onward_fails = self.onward is not None and self.onward.peer_id in broken
        return up_to_date and (self.reaches or onward_fails)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """While something is sent of which it matters whether it arrived: if sending is
        interrupted, it stays `unsure`."""
        self.unsure = True
        yield
        self.unsure = False


class Spares(Generic[P]):
    """All spares of one session, at most one for each peer of the chain. It holds a spare from
    `add` to `remove`."""

    def __init__(self) -> None:
        self._by_member: dict[str, Spare[P]] = {}
        self._spent: set[str] = set()  # peers that failed to stand by, and are not tried again
        self._sought_at: dict[tuple[int, int], float] = {}  # by layers

    def __iter__(self) -> Iterator[Spare[P]]:
        return iter(tuple(self._by_member.values()))

    @property
    def peer_ids(self) -> set[str]:
        return {spare.link.peer_id for spare in self}

    def ready(self, now: float) -> tuple[P, ...]:
        """Return the peers that could take a place now."""
        return tuple(spare.link for spare in self if spare.could_step_in(now))

    # Coming and going.

    def seek(self, place: int, chain: Sequence[P], now: float) -> set[str] | None:
        """Return which peers not to take as a spare for a place; None if none is sought there now.

        It counts as a search: the next one for the same layers is due after `SEEK_S`.
        """
        member = chain[place]
        sought_at = self._sought_at.get(member.layers, float("-inf"))
        if member.peer_id in self._by_member or now - sought_at < SEEK_S:
            return None
        self._sought_at[member.layers] = now
        return {peer.peer_id for peer in chain} | self.peer_ids | self._spent

    def seek_again(self) -> None:
        """Let the next search be due at once."""
        self._sought_at.clear()

    def add(self, place: int, chain: Sequence[P], link: P, now: float) -> Spare[P]:
        """Let a peer stand by for the one at a place of the chain."""
        onward = chain[place + 1].hop if place + 1 < len(chain) else None
        feeder = chain[place - 1] if place else None
        spare = Spare(link, chain[place].peer_id, feeder, onward, now)
        self._by_member[spare.member] = spare
        return spare

    def remove(self, spare: Spare[P]) -> None:
        """Forget a spare."""
        if self._by_member.get(spare.member) is spare:
            del self._by_member[spare.member]

    def of(self, member: P) -> Spare[P] | None:
        """Return the spare that stands by for a peer of the chain, if there is one."""
        return self._by_member.get(member.peer_id)

    # Events.

    def hear(self, event: Event, branches: bool) -> None:
        """Take what comes from a spare. Only here it changes what is known of one.

        Args:
            branches: the chain takes several continuations of one token.
        """
        spare = next((each for each in self if each.link.peer_id == event.peer_id), None)
        if spare is None:
            return
        if isinstance(event, Lost):
            spare.failure = event.why
            return
        message = event.message
        if isinstance(message, Opened):
            spare.opened = message.branches or not branches
            spare.taps = message.taps
            spare.failure = "" if spare.opened else "it takes no branches"
        elif isinstance(message, Rerouted):
            spare.reaches = True
        elif isinstance(message, Progress):
            spare.ready = message.last >= spare.asked[0]
            spare.since = event.at if spare.ready and spare.reaches else spare.since
        elif isinstance(message, Fault):
            onward = spare.onward
            if spare.opened and onward is not None and message.peer == onward.peer_id:
                spare.reaches = False  # if that one has failed, the client says who replaces it
            else:
                spare.failure = message.text or message.code.value
        else:
            spare.failure = f"it sent {type(message).__name__} out of turn"

    def look(self, now: float, answered: int) -> tuple[list[Spare[P]], list[Spare[P]]]:
        """Return the spares that are to be left, for good, and those that are to be asked how far
        they have come.

        Args:
            answered: the last serial that the chain has answered.
        """
        left: list[Spare[P]] = []
        asked: list[Spare[P]] = []
        for spare in self:
            if not spare.failure and now - spare.since > CATCH_UP_S:
                spare.failure = f"it was not up to date for {CATCH_UP_S:g} s"
            if spare.failure:
                self._spent.add(spare.link.peer_id)
                left.append(spare)
            elif spare.fed:
                spare.asked = spare.asked[1], answered
                asked.append(spare)
        return left, asked

    def begin_feed(self, spare: Spare[P], answered: int) -> None:
        """Note that a spare is fed from now on."""
        spare.fed = True
        spare.asked = (answered, answered)

    def follow(
        self, chain: Sequence[P], broken: Collection[str]
    ) -> tuple[list[Spare[P]], list[Spare[P]]]:
        """The chain has changed, or these of its peers have failed.

        Return the spares that are to be left, because their place is gone or they are not fed any
        more, and those that are to be told that they would send to another peer now.
        """
        places = {peer.peer_id: place for place, peer in enumerate(chain)}
        left: list[Spare[P]] = []
        rerouted: list[Spare[P]] = []
        for spare in self:
            place = places.get(spare.member)
            feeder = chain[place - 1] if place else None
            starved = feeder is not None and feeder.peer_id in broken
            if place is None or feeder != spare.feeder or starved:
                left.append(spare)
                continue
            behind = chain[place + 1] if place + 1 < len(chain) else None
            if behind is not None and behind.peer_id not in broken and behind.hop != spare.onward:
                spare.onward = behind.hop
                spare.reaches = False
                rerouted.append(spare)
        return left, rerouted

    def senders(self, chain: Sequence[P]) -> list[tuple[P, tuple[str, ...]]]:
        """Return for each peer of the chain but the first the ids of those whose frames it should
        accept: the peer before it, and the spare that may take that one's place."""
        accepted: list[tuple[P, tuple[str, ...]]] = []
        for before, peer in pairwise(chain):
            spare = self.of(before)
            others = () if spare is None else (spare.link.peer_id,)
            accepted.append((peer, (before.peer_id, *others)))
        return accepted
