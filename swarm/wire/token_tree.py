"""What a session holds on one peer: a tree of tokens, told by numbers that are given once and never
again.

Every token that is sent in a session gets the next *serial* number, from 1 on; 0 stands for the
beginning, before all tokens. A token follows a *parent*, and sees its ancestors and nothing else.
So text that may come to pass can be sent ahead, several continuations side by side, and one rule
serves for rollback, cancellation, retransmission and branches:

- A frame of an older epoch is stale, and whoever holds it may drop it, computed or not. A newer
  epoch forgets all that does not lead to the frame's ``root``, which is therefore a token that has
  been answered, or the beginning: only that is sure to be held by every peer.
- Within an epoch serials follow each other without a gap, and what neither leads to ``root`` nor
  follows from it is forgotten. Around a replay, or behind a cut, serials are missing, none of which
  is needed.
- What is replayed has been answered, and stays true in newer epochs: only the client's own word
  makes it stale.
- A parent is the root, a token behind it, or one of the frame itself; anything else is a fault.
- Frames of one epoch that follow each other may be joined to one; it has the root of the first of
  them.

Serials outlive everything that a peer forgets or never computed: two peers of a chain of which one
has dropped stale frames still mean the same by them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from swarm.errors import RemoteViolation
from swarm.wire.tensors import MAX_FRAME_TOKENS

BEGINNING = 0  # the serial before all tokens
MAX_TAIL = 1024  # tokens behind the root; masks grow with it


class ReplayChunk(NamedTuple):
    """Tokens that one frame sends once more.

    Attributes:
        first: the serial of the first of them.
        rows: which of the held rows they are.
        root: the root of the frame.
        parents: of the frame, see `Frame`; None if each token follows the one before it.
    """

    first: int
    rows: slice
    root: int
    parents: tuple[int, ...] | None


@dataclass(eq=False)
class OutOfOrder(RemoteViolation):
    """A frame does not continue the stream: the sender's fault."""

    epoch: int
    first: int
    problem: str

    def __str__(self) -> str:
        return (
            f"a frame of epoch {self.epoch} whose first token is number {self.first}:"
            f" {self.problem}"
        )


@dataclass(frozen=True)
class Placement:
    """Where a frame's tokens go: into the rows behind ``start``, as rows count what a session
    holds.

    Attributes:
        keep: rows that move to the end of the rows before ``start``, which is where
            ``start - len(keep)`` begins; ascending, and never forward. All others from there on are
            forgotten. Empty where forgetting the rows from ``start`` on is all that there is to do.
        positions: of each token in the text: the number of its ancestors.
        trunk: rows from 0 on that every token of the frame sees.
        sees: None where each token sees all rows before its own. Else, for each token, the rows
            behind the trunk that it sees, itself included: bit ``i`` stands for row ``trunk + i``.
    """

    start: int
    keep: tuple[int, ...]
    positions: tuple[int, ...]
    trunk: int
    sees: tuple[int, ...] | None


@dataclass
class TokenTree:
    """Where a session stands on one peer. A failing `admit` changes nothing."""

    epoch: int = 0
    floor: int = 0  # epochs below are stale, because the client said so ahead of its frames
    ahead: int = 0  # and below this one, all but what is replayed: a newer epoch has been heard of
    root: int = BEGINNING
    last: int = BEGINNING  # the highest serial seen
    # rows that lead to the root, its own included: there, row and position are the same
    trunk: int = 0
    # The tokens behind the trunk, one a row: their serials, and what they see. Bit i of the latter:
    # it is, or follows from, the token of row `trunk + i`. So the highest bit but its own is its
    # parent.
    _serials: list[int] = field(default_factory=list)
    _sees: list[int] = field(default_factory=list)
    _resumed: bool = False  # the next frame of this epoch may leave a gap

    @property
    def length(self) -> int:
        """Rows held."""
        return self.trunk + len(self._serials)

    def stale(self, epoch: int, replay: bool = False) -> bool:
        """Whether frames of this epoch come too late."""
        return epoch < max(self.epoch, self.floor if replay else self.ahead)

    def holds(self, root: int) -> bool:
        """Whether a frame of a newer epoch may name this root."""
        return root in (BEGINNING, self.root) or root in self._serials

    def cancel(self, epoch: int, replays: bool = True) -> None:
        """Frames of epochs before ``epoch`` are stale from now on, whether or not a newer one has
        come; what is replayed only if ``replays``."""
        self.ahead = max(self.ahead, epoch)
        if replays:
            self.floor = max(self.floor, epoch)

    def admit(
        self,
        epoch: int,
        root: int,
        first: int,
        count: int,
        parents: Sequence[int] | None = None,
        replay: bool = False,
    ) -> Placement | None:
        """Place the ``count`` tokens from serial ``first`` on; None for a stale frame.

        Args:
            parents: how many serials before its own each token's parent is; None if each follows
                the one before it.
            replay: the tokens are told once more, to a peer that takes the place of another one.

        Raises:
            OutOfOrder: if the frame does not continue what is held.
        """
        if self.stale(epoch, replay):
            return None
        resumed = self._resumed or (replay and self.last == BEGINNING)
        gap = epoch == self.epoch and first != self.last + 1 and not resumed
        if gap or first <= self.last:
            raise OutOfOrder(epoch, first, f"the last one in epoch {self.epoch} was {self.last}")
        trunk, keep, serials, sees = self._forget(epoch, root, first)
        held = len(serials)
        if held + count > MAX_TAIL:
            raise OutOfOrder(epoch, first, f"more than {MAX_TAIL} tokens lie behind its root")
        sight = {root: 0} | dict(zip(serials, sees, strict=True))
        for serial, distance in enumerate(parents or (1,) * count, first):
            seen = sight.get(serial - distance)
            if seen is None:
                raise OutOfOrder(
                    epoch, first, f"the parent of number {serial}, {serial - distance}, is not held"
                )
            sight[serial] = seen | 1 << len(serials)
            serials.append(serial)
            sees.append(sight[serial])
        self.epoch = epoch
        self.root = root
        self.last = first + count - 1
        self.trunk = trunk
        self._serials = serials
        self._sees = sees
        self._resumed = replay
        new = sees[held:]
        return Placement(
            start=trunk + held,
            keep=keep,
            positions=tuple(trunk + seen.bit_count() - 1 for seen in new),
            trunk=trunk,
            sees=(
                None
                if all(seen == (2 << i) - 1 for i, seen in enumerate(new, held))
                else tuple(new)
            ),
        )

    def cut(self, epoch: int, root: int) -> Placement:
        """Begin a newer epoch by forgetting all that does not lead to ``root``; no token comes.

        Raises:
            OutOfOrder: if the epoch is not newer, or the root is not held.
        """
        if self.stale(epoch) or epoch == self.epoch:
            raise OutOfOrder(epoch, self.last + 1, f"epoch {self.epoch} is not older")
        trunk, keep, serials, sees = self._forget(epoch, root, self.last + 1)
        self.epoch = epoch
        self.root = root
        self.trunk = trunk
        self._serials = serials
        self._sees = sees
        self._resumed = True
        return Placement(start=trunk, keep=keep, positions=(), trunk=trunk, sees=None)

    def replay_chunks(self) -> Iterator[ReplayChunk]:
        """How all that is held is told once more, within the current epoch, to a peer that holds
        none of it: first the trunk, as `replayed` does, then what lies behind it under the serials
        that it has."""
        yield from replayed(self.root, self.trunk)
        serials, start = self._serials, 0
        while start < len(serials):
            end = start + 1
            while (
                end < min(len(serials), start + MAX_FRAME_TOKENS)
                and serials[end] == serials[end - 1] + 1
            ):
                end += 1
            distances = tuple(serials[i] - self._parent(i) for i in range(start, end))
            which = slice(self.trunk + start, self.trunk + end)
            parents = None if set(distances) == {1} else distances
            yield ReplayChunk(serials[start], which, self.root, parents)
            start = end

    def _parent(self, index: int) -> int:
        """The serial of the parent of a token behind the trunk."""
        ancestors = self._sees[index] ^ 1 << index
        return self._serials[ancestors.bit_length() - 1] if ancestors else self.root

    def _forget(
        self, epoch: int, root: int, first: int
    ) -> tuple[int, tuple[int, ...], list[int], list[int]]:
        """The new trunk, the rows that move, and the tokens that stay behind the trunk: serials,
        and what they see."""
        newer = epoch > self.epoch
        if newer and root == BEGINNING:
            return 0, (), [], []
        if root == self.root:
            return (
                (self.trunk, (), [], [])
                if newer
                else (self.trunk, (), [*self._serials], [*self._sees])
            )
        if root not in self._serials:
            raise OutOfOrder(epoch, first, f"its root, number {root}, is not held")
        at, end = self._serials.index(root), len(self._serials)
        leads = [i for i in range(at + 1) if self._sees[at] >> i & 1]
        follows = [] if newer else [i for i in range(at + 1, end) if self._sees[i] >> at & 1]
        keep = tuple(self.trunk + i for place, i in enumerate((*leads, *follows)) if i != place)
        return (
            self.trunk + len(leads),
            keep,
            [self._serials[i] for i in follows],
            _among(follows, self._sees, at + 1),
        )


def replayed(root: int, rows: int) -> Iterator[ReplayChunk]:
    """How ``rows`` tokens, one after the other from the beginning of the text on, are told once
    more to a peer that holds none of them, so that the last one has the serial ``root``."""
    before, first = BEGINNING, root - rows + 1
    for start in range(0, rows, MAX_FRAME_TOKENS):
        count = min(MAX_FRAME_TOKENS, rows - start)
        parents = None if first == before + 1 else (first - before, *[1] * (count - 1))
        yield ReplayChunk(first, slice(start, start + count), before, parents)
        first += count
        before = first - 1


def _among(follows: Sequence[int], sees: Sequence[int], after: int) -> list[int]:
    """What the tokens ``follows``, whose indices are ``after`` or more, see of each other: bit i
    means the i-th."""
    if len(follows) == len(sees) - after:  # all of them, as nearly always
        return [seen >> after for seen in sees[after:]]
    index = {i: place for place, i in enumerate(follows)}
    among: list[int] = []
    for place, i in enumerate(follows):
        parent = index.get((sees[i] ^ 1 << i).bit_length() - 1)
        among.append((0 if parent is None else among[parent]) | 1 << place)
    return among
