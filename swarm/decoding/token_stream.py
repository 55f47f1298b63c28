"""What a chain was sent of one text: serials, windows in flight, and the epoch.

Serials, epochs and roots are those of `swarm.wire.token_tree`.
"""

from collections.abc import Iterable, Sequence

from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.windows import ResumePoint, Window


class TokenStream:
    """One text's stream of tokens through a chain, as its client sends it.

    Args:
        unread: the part of the prompt that the chain does not hold, its last token left out: that
            is the tip.
        held: what the chain holds of the prompt already.
        answered_from: the first position of the prompt whose answer is wanted for the drafter; None
            for none.

    Attributes:
        epoch: of the next window.
        unread: the part of the prompt that was not sent yet, likewise without the tip.
        root: the serial of the last token that every peer holds, whatever fails: the last one of
            the text that was answered. Before there is an answer, the end of the last whole chunk
            of the prompt.
        windows_ahead: sent since the text left the drafted path.
    """

    def __init__(
        self, unread: Sequence[int], held: ResumePoint, answered_from: int | None = None
    ) -> None:
        self.epoch = held.epoch
        self.unread = list(unread)
        self.root = held.root
        self.windows_ahead = 0
        self._answered_from = answered_from
        self._serial = held.last  # the last one given
        # For each window in flight, by its first serial: the nodes whose answers are wanted.
        self._awaited: dict[int, tuple[DraftNode, ...]] = {}

    @property
    def in_flight(self) -> int:
        """How many windows are in flight."""
        return len(self._awaited)

    @property
    def asking(self) -> int:
        """How many of these ask for an answer; the others are chunks of a prompt."""
        return sum(bool(nodes) for nodes in self._awaited.values())

    def send(self, tree: DraftTree, nodes: Sequence[DraftNode], unread: int) -> Window:
        """Give serials to ``unread`` tokens of the prompt and to ``nodes``, and await their
        answers.

        Args:
            tree: that the nodes are part of.
        """
        first = self._serial + 1
        root = self.root
        parents = [first - root, *[1] * (unread - 1)] if unread else []
        position = tree.tip.position - len(self.unread) if unread else nodes[0].position
        self._serial += unread
        before = self._serial if unread else root  # what the tip follows
        tree.send(nodes, self._serial + 1)
        for node in nodes:
            self._serial += 1
            parents.append(self._serial - (before if node.parent is None else node.parent.serial))
        tokens = (*self.unread[:unread], *(node.token for node in nodes))
        del self.unread[:unread]
        if not nodes:
            self.root = self._serial
        self.windows_ahead = 0 if tree.tip in nodes[:1] else self.windows_ahead + 1
        self._awaited[first] = tuple(nodes)
        features = 0
        if self._answered_from is not None:
            features = max(0, min(unread, position + unread - self._answered_from))
        follows = all(distance == 1 for distance in parents)
        return Window(
            epoch=self.epoch,
            root=root,
            first=first,
            tokens=tokens,
            parents=None if follows else tuple(parents),
            tail=features + len(nodes),
            position=position,
            features=features,
        )

    def answered(self, windows: Iterable[Window]) -> list[tuple[int, DraftNode]]:
        """Await some windows no more; return the rows of their answer that the text may still get
        to, and their nodes.

        The answer has a row for each of the windows' tails; those of a window that became void are
        worth nothing.
        """
        rows: list[tuple[int, DraftNode]] = []
        start = 0
        for window in windows:
            nodes = self._awaited.pop(window.first, ())
            rows += [
                (row, node) for row, node in enumerate(nodes, start + window.features) if node.alive
            ]
            start += window.tail
        return rows

    def flush(self) -> None:
        """Begin a newer epoch: all that is in flight is void."""
        self.epoch += 1
        self._awaited.clear()

    def resume(self, text: Sequence[int]) -> ResumePoint:
        """Begin a newer epoch because a peer has lost everything; the others hold ``text``."""
        self.flush()
        return ResumePoint(self.epoch, self.root, self._serial, tuple(text))

    def restart(self, text: Sequence[int]) -> ResumePoint:
        """Begin a newer epoch in which all of ``text`` is sent again."""
        self.flush()
        self.root = 0
        self.unread = list(text)
        return ResumePoint(self.epoch, 0, self._serial, ())

    def held(self, text: Sequence[int]) -> ResumePoint:
        """Return where another text can go on from ``text``, which all peers hold."""
        return ResumePoint(self.epoch + 1, self.root, self._serial, tuple(text))
