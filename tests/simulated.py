"""A chain of two peers without any model or network, for the tests of what runs on the client.

Each peer places every window by the rule of `swarm.wire.stream` and keeps, in the place of keys and values, the whole
text up to each token. So a row that should have been forgotten, or a token that sees the wrong ones, shows.
"""

from collections import deque

from swarm.decoding.decoder import Window
from swarm.wire.stream import Stream


class SimulatedPeer:
    """Keeps for each row the text that its token sees, itself included."""

    def __init__(self):
        self.stream = Stream()
        self.rows = []

    def place(self, window: Window):
        """The texts up to each token of the window, or None if it is stale."""
        placed = self.stream.admit(window.epoch, window.root, window.first, len(window.tokens), window.parents)
        if placed is None:
            return None
        base = placed.start - len(placed.keep)
        assert list(placed.keep) == sorted(placed.keep)
        assert all(row >= base for row in placed.keep)
        self.rows = [*self.rows[:base], *(self.rows[row] for row in placed.keep)]
        for i, (token, position) in enumerate(zip(window.tokens, placed.positions, strict=True)):
            seen = self._seen(placed, i)
            text = tuple(self.rows[row][-1] for row in seen)
            assert not seen or self.rows[seen[-1]] == text, "a token sees its ancestors and nothing else"
            assert len(text) == position
            self.rows.append((*text, token))
        assert len(self.rows) == self.stream.length
        return self.rows[len(self.rows) - len(window.tokens) :]

    def _seen(self, placed, i):
        if placed.sees is None:
            return range(placed.start + i)
        behind = [placed.trunk + bit for bit in range(placed.start + i - placed.trunk) if placed.sees[i] >> bit & 1]
        return [*range(placed.trunk), *behind]


class SimulatedChain:
    """Two peers with frames waiting before and between them. An answer is (epoch, first, count, texts)."""

    def __init__(self):
        self.peers = [SimulatedPeer(), SimulatedPeer()]
        self.waiting = [deque(), deque()]
        self.answers = deque()
        self.sent = []

    def send(self, window: Window):
        self.sent.append(window)
        self.waiting[0].append(window)

    def cancel(self, epoch):
        """What a client says to every peer: older epochs are stale."""
        for peer in self.peers:
            peer.stream.cancel(epoch)

    def step(self, number):
        """Let a peer compute the frame that has waited longest there."""
        window = self.waiting[number].popleft()
        texts = self.peers[number].place(window)
        if texts is None:
            return  # stale: it dies here
        if number == 0:
            self.waiting[1].append(window)
        else:
            self.answers.append((window.epoch, window.first, len(window.tokens), texts[len(texts) - window.tail :]))

    def flow(self):
        """Let everything that waits be computed."""
        for number in (0, 1):
            while self.waiting[number]:
                self.step(number)

    def merge(self):
        """Let the first two answers be one, as a busy peer does that computes two frames together."""
        (epoch, first, count, texts), (other, _, more, others) = self.answers[0], self.answers[1]
        if epoch == other and len(texts) == count and len(others) == more:
            del self.answers[1]
            self.answers[0] = epoch, first, count + more, [*texts, *others]
