"""A chain of peers without model or network, for tests of the decoder on the client.

Each peer places every window by the rule of `swarm.wire.token_tree` and keeps, instead of keys and
values, the whole text up to each token. So a row that should have been forgotten, or a token that
sees the wrong ones, shows. A peer that has lost everything gets a replay as from
`swarm.chain.failover` and `peers`.
"""

from collections import deque
from dataclasses import dataclass
from itertools import groupby

from swarm.decoding.windows import ResumePoint, Window
from swarm.wire.token_tree import TokenTree, replayed


@dataclass(frozen=True)
class Replay:
    """A window that is replayed to a peer and to ``further`` peers after it."""

    window: Window
    further: int


class SimulatedPeer:
    """Keeps for each row the text that its token sees, including itself."""

    def __init__(self):
        self.stream = TokenTree()
        self.rows = []

    def place(self, window: Window, replay=False):
        """Return the texts up to each token of the window, or None if it is stale."""
        count = len(window.tokens)
        placed = self.stream.admit(
            window.epoch, window.root, window.first, count, window.parents, replay
        )
        if placed is None:
            return None
        self._keep(placed)
        for i, (token, position) in enumerate(zip(window.tokens, placed.positions, strict=True)):
            seen = self._seen(placed, i)
            text = tuple(self.rows[row][-1] for row in seen)
            assert not seen or self.rows[seen[-1]] == text, (
                "a token sees its ancestors and nothing else"
            )
            assert len(text) == position
            self.rows.append((*text, token))
        assert len(self.rows) == self.stream.length
        return self.rows[len(self.rows) - count :]

    def cut(self, epoch, root):
        """Go back to ``root``, and return the text up to it."""
        self._keep(self.stream.cut(epoch, root))
        assert len(self.rows) == self.stream.length
        return self.rows[-1] if self.rows else ()

    def _keep(self, placed):
        base = placed.start - len(placed.keep)
        assert list(placed.keep) == sorted(placed.keep)
        assert all(row >= base for row in placed.keep)
        self.rows = [*self.rows[:base], *(self.rows[row] for row in placed.keep)]

    def _seen(self, placed, i):
        if placed.sees is None:
            return range(placed.start + i)
        behind = [
            placed.trunk + bit
            for bit in range(placed.start + i - placed.trunk)
            if placed.sees[i] >> bit & 1
        ]
        return [*range(placed.trunk), *behind]


class SimulatedChain:
    """Peers with frames waiting before and between them.

    An answer is (windows, texts): the windows that it answers, and the text up to each token that
    they ask about.
    """

    def __init__(self, peers=2):
        self.peers = [SimulatedPeer() for _ in range(peers)]
        self.waiting = [deque() for _ in range(peers)]
        self.answers = deque()
        self.sent = []

    def send(self, window: Window):
        self.sent.append(window)
        self.waiting[0].append(window)

    def cancel(self, epoch, replays=True):
        """Make older epochs stale on every peer, as a client's cancel does."""
        for peer in self.peers:
            peer.stream.cancel(epoch, replays)

    def step(self, number):
        """Let a peer compute the frame that has waited longest there."""
        frame = self.waiting[number].popleft()
        if isinstance(frame, Replay):
            assert self.peers[number].place(frame.window, replay=True) is not None, (
                "what is replayed is never stale"
            )
            if frame.further:
                self.waiting[number + 1].append(Replay(frame.window, frame.further - 1))
            return
        texts = self.peers[number].place(frame)
        if texts is None:
            return  # stale: it dies here
        if number + 1 < len(self.peers):
            self.waiting[number + 1].append(frame)
        else:
            self.answers.append(([frame], texts[len(texts) - frame.tail :]))

    def flow(self):
        """Let everything that waits be computed."""
        for number, waiting in enumerate(self.waiting):
            while waiting:
                self.step(number)

    def merge(self):
        """Merge the first two answers, as a busy peer does that computes two frames together."""
        (windows, texts), (more, others) = self.answers[0], self.answers[1]
        whole = all(window.tail == len(window.tokens) for window in (*windows, *more))
        if windows[0].epoch == more[0].epoch and whole:
            del self.answers[1]
            self.answers[0] = [*windows, *more], [*texts, *others]

    def replace(self, failed, resume: ResumePoint):
        """Replace the peers of these numbers; the peer before them replays, or the client.

        Frames that wait at the other peers stay. A peer that still waits for a replay from one of
        the failed peers counts as failed, too.
        """
        failed = set(failed)
        for number in range(1, len(self.peers)):
            if number - 1 in failed and number not in failed:
                self._compute_replays(number)
                if not self.peers[number].stream.holds(resume.root):
                    failed.add(number)
        for number in failed:
            self.peers[number] = SimulatedPeer()
        for is_failed, run in groupby(range(len(self.peers)), lambda number: number in failed):
            numbers = list(run)
            if is_failed:
                self._hand_over(numbers[0], len(numbers) - 1, resume)

    def _hand_over(self, number, further, resume):
        for before in range(number):
            self._compute_replays(before)
        for lost in range(number, number + further + 1):
            self.waiting[lost].clear()
        if number:
            text = self.peers[number - 1].cut(resume.epoch, resume.root)
            assert text == resume.tokens, (
                "the peer before holds what has been answered, and nothing else"
            )
        for first, which, root, parents in replayed(resume.root, len(resume.tokens)):
            window = Window(
                resume.epoch, root, first, resume.tokens[which], parents, 0, which.start
            )
            self.waiting[number].append(Replay(window, further))

    def _compute_replays(self, number):
        """Let a peer compute the replays that wait there, for which a reroute waits."""
        while any(isinstance(frame, Replay) for frame in self.waiting[number]):
            self.step(number)
