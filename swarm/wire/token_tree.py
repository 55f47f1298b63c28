"""The tree of tokens that a session holds on one peer.

Every token that is sent in a session gets the next *serial* number, from 1 on; 0 is the beginning,
before all tokens. A token follows a *parent*, and attends to its ancestors only. So several
continuations of a text can be sent ahead side by side, and one rule serves for rollback,
cancellation, retransmission and branches:

- A frame of an older epoch is stale. Its holder may drop it, computed or not. A newer epoch forgets
  all tokens that do not lead to the frame's ``root``. The root is therefore a token that has been
  answered, or the beginning: only these are held by every peer for certain.
- Within an epoch serials have no gaps, and tokens that neither lead to ``root`` nor follow from it
  are forgotten. Around a replay and after a cut serials are missing, none of which is needed.
- Replayed tokens have been answered, and stay valid in newer epochs. Only a `Cancel` makes them
  stale.
- A parent is the root, a token after it, or one of the same frame; anything else is a fault.
- Consecutive frames of one epoch may be joined to one, with the root of the first of them.

Serials outlive what a peer forgets or never computed. Two peers of a chain, one of which has
dropped stale frames, still mean the same tokens by them.
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
    """Where a frame's tokens go: into the rows from ``start`` on, of the rows that a session holds.

    Attributes:
        keep: rows that move to ``start - len(keep)`` and the rows after it, in ascending order and
            never forward. All other rows from there on are forgotten. If empty, only the rows from
            ``start`` on are forgotten.
        positions: of each token in the text: the number of its ancestors.
        trunk: number of rows, from 0 on, that every token of the frame attends to.
        sees: None if each token attends to all rows before its own. Otherwise for each token the
            rows after the trunk that it attends to, itself included: bit ``i`` is row ``trunk +
            i``.
    """

    start: int
    keep: tuple[int, ...]
    positions: tuple[int, ...]
    trunk: int
    sees: tuple[int, ...] | None


class _Remaining(NamedTuple):
    """What a session still holds when tokens have been forgotten. Its lists are new ones, to which
    tokens may be added.

    Attributes:
        trunk: its new length.
        keep: rows that move, see `Placement`.
        serials: of the tokens after the trunk.
        sees: what these attend to, see `TokenTree`.
    """

    trunk: int
    keep: tuple[int, ...]
    serials: list[int]
    sees: list[int]


@dataclass
class TokenTree:
    """The tokens that a session holds on one peer. A failing `admit` changes nothing."""

    epoch: int = 0
    floor: int = 0  # epochs below are stale: the client has cancelled them
    ahead: int = 0  # epochs below are stale, except for replays: a newer epoch was announced
    root: int = BEGINNING
    last: int = BEGINNING  # the highest serial seen
    # rows that lead to the root, its own included: there, row and position are the same
    trunk: int = 0
    # The tokens after the trunk, one a row: their serials, and what they attend to. Bit i: it is,
    # or follows from, the token of row `trunk + i`. So the highest bit below its own is its parent.
    _serials: list[int] = field(default_factory=list)
    _sees: list[int] = field(default_factory=list)
    _resumed: bool = False  # the next frame of this epoch may leave a gap

    @classmethod
    def holding(cls, count: int) -> "TokenTree":
        """Return the tree of a session that begins with ``count`` tokens: their serials are 1 to
        ``count``, and the last one is the root."""
        return cls(root=count, last=count, trunk=count)

    @property
    def length(self) -> int:
        """Rows held."""
        return self.trunk + len(self._serials)

    def stale(self, epoch: int, replay: bool = False) -> bool:
        """Return whether frames of this epoch come too late."""
        return epoch < max(self.epoch, self.floor if replay else self.ahead)

    def holds(self, root: int) -> bool:
        """Return whether a frame of a newer epoch may name this root."""
        return root in (BEGINNING, self.root) or root in self._serials

    def find(self, serial: int) -> tuple[int, int] | None:
        """Return the row and the position in the text of a token from the root on; None if it is
        not held."""
        if serial == self.root and self.trunk:
            return self.trunk - 1, self.trunk - 1
        if serial not in self._serials:
            return None
        index = self._serials.index(serial)
        return self.trunk + index, self.trunk + self._sees[index].bit_count() - 1

    def cancel(self, epoch: int, replays: bool = True) -> None:
        """Make frames of epochs before ``epoch`` stale, even if no newer frame has come yet.

        Replays of these epochs become stale only if ``replays``.
        """
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
            replay: whether the tokens are sent once more, to a peer that replaces another one.

        Raises:
            OutOfOrder: if the frame does not continue what is held.
        """
        if self.stale(epoch, replay):
            return None
        resumed = self._resumed or (replay and self.last == BEGINNING)
        gap = epoch == self.epoch and first != self.last + 1 and not resumed
        if gap or first <= self.last:
            raise OutOfOrder(epoch, first, f"the last one in epoch {self.epoch} was {self.last}")
        left = self._forget(epoch, root, first)
        serials, sees = left.serials, left.sees
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
        self.trunk = left.trunk
        self._serials = serials
        self._sees = sees
        self._resumed = replay
        new = sees[held:]
        return Placement(
            start=left.trunk + held,
            keep=left.keep,
            positions=tuple(left.trunk + seen.bit_count() - 1 for seen in new),
            trunk=left.trunk,
            sees=(
                None
                if all(seen == (2 << i) - 1 for i, seen in enumerate(new, held))
                else tuple(new)
            ),
        )

    def cut(self, epoch: int, root: int) -> Placement:
        """Begin a newer epoch without tokens: forget all that do not lead to ``root``.

        Raises:
            OutOfOrder: if the epoch is not newer, or the root is not held.
        """
        if self.stale(epoch) or epoch == self.epoch:
            raise OutOfOrder(epoch, self.last + 1, f"epoch {self.epoch} is not older")
        left = self._forget(epoch, root, self.last + 1)
        self.epoch = epoch
        self.root = root
        self.trunk = left.trunk
        self._serials = left.serials
        self._sees = left.sees
        self._resumed = True
        return Placement(left.trunk, left.keep, positions=(), trunk=left.trunk, sees=None)

    def beginning(self, root: int, count: int) -> Placement | None:
        """Return which rows hold the first ``count`` tokens of the text that ends with ``root``.

        As in a placement that keeps them and no others. None if they are not all held; a root that
        later ones follow from is forgotten, and the tokens up to these are those of its text.
        """
        leads: list[int] = []
        if count > self.trunk:
            if root not in self._serials:
                return None
            sees = self._sees[self._serials.index(root)]
            leads = set_bits(sees)[: count - self.trunk]
            if self.trunk + len(leads) < count:
                return None
        keep = tuple(self.trunk + i for place, i in enumerate(leads) if i != place)
        return Placement(start=count, keep=keep, positions=(), trunk=count, sees=None)

    def replay_chunks(self) -> Iterator[ReplayChunk]:
        """Yield all held tokens as frames of the current epoch, for a peer that holds none of them.

        First comes the trunk, as from `replayed`, then the tokens after it under their own serials.
        """
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
        """Return the serial of the parent of a token after the trunk."""
        ancestors = self._sees[index] ^ 1 << index
        return self._serials[ancestors.bit_length() - 1] if ancestors else self.root

    def _forget(self, epoch: int, root: int, first: int) -> _Remaining:
        """Return what a frame of this epoch with this root, the first of whose tokens is ``first``,
        leaves of the tokens that are held."""
        newer = epoch > self.epoch
        if newer and root == BEGINNING:
            return _Remaining(0, (), [], [])
        if root == self.root:
            if newer:
                return _Remaining(self.trunk, (), [], [])
            return _Remaining(self.trunk, (), [*self._serials], [*self._sees])
        if root not in self._serials:
            raise OutOfOrder(epoch, first, f"its root, number {root}, is not held")
        at, end = self._serials.index(root), len(self._serials)
        leads = set_bits(self._sees[at])
        follows = [] if newer else [i for i in range(at + 1, end) if self._sees[i] >> at & 1]
        return _Remaining(
            trunk=self.trunk + len(leads),
            keep=tuple(self.trunk + i for place, i in enumerate((*leads, *follows)) if i != place),
            serials=[self._serials[i] for i in follows],
            sees=_among(follows, self._sees, at + 1),
        )


def set_bits(number: int) -> list[int]:
    """Return which bits are set, in ascending order: the rows after the trunk that a token sees."""
    return [i for i in range(number.bit_length()) if number >> i & 1]


def replayed(root: int, rows: int) -> Iterator[ReplayChunk]:
    """Yield the first ``rows`` tokens of a text as frames, for a peer that holds none of them.

    The last token has the serial ``root``.
    """
    before, first = BEGINNING, root - rows + 1
    for start in range(0, rows, MAX_FRAME_TOKENS):
        count = min(MAX_FRAME_TOKENS, rows - start)
        parents = None if first == before + 1 else (first - before, *[1] * (count - 1))
        yield ReplayChunk(first, slice(start, start + count), before, parents)
        first += count
        before = first - 1


def _among(follows: Sequence[int], sees: Sequence[int], after: int) -> list[int]:
    """Return which of each other the tokens ``follows`` attend to: bit i is the i-th of them.

    Their indices are ``after`` or more.
    """
    if len(follows) == len(sees) - after:  # all of them, as nearly always
        return [seen >> after for seen in sees[after:]]
    index = {i: place for place, i in enumerate(follows)}
    among: list[int] = []
    for place, i in enumerate(follows):
        parent = index.get((sees[i] ^ 1 << i).bit_length() - 1)
        among.append((0 if parent is None else among[parent]) | 1 << place)
    return among
