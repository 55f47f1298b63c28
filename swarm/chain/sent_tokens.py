"""All tokens that a session was sent, as the first peer of its chain holds them: for a second peer
that is to hold the same."""

from collections.abc import Iterator

from swarm.decoding.windows import ResumePoint, Window
from swarm.wire.fields import SessionId
from swarm.wire.messages import Frame
from swarm.wire.replays import replay_frame
from swarm.wire.token_tree import ReplayChunk, TokenTree, replayed


class SentTokens:
    """A copy of what the first peer holds. It follows the same rule, `TokenTree`, without keys and
    values.

    The protocol's book forgets a window as soon as it is answered; this one exists only where a
    peer may stand by for the first one.

    Args:
        held: what the chain holds already.
    """

    def __init__(self, session: SessionId, held: ResumePoint) -> None:
        self._session = session
        self._tree = TokenTree()
        self._tokens = list(held.tokens)  # one a row
        for first, rows, root, parents in replayed(held.root, len(held.tokens)):
            self._tree.admit(held.epoch, root, first, rows.stop - rows.start, parents, replay=True)

    def add(self, window: Window) -> Frame:
        """Add a window; return it as a frame for a peer that stands by: computed, not answered."""
        count = len(window.tokens)
        placement = self._tree.admit(window.epoch, window.root, window.first, count, window.parents)
        if placement is not None:
            start, keep = placement.start, placement.keep
            kept = [self._tokens[row] for row in keep]
            self._tokens[start - len(keep) :] = [*kept, *window.tokens]
        chunk = ReplayChunk(window.first, slice(0, count), window.root, window.parents)
        return replay_frame(self._session, window.epoch, chunk, 0, tokens=window.tokens)

    def replay(self) -> Iterator[Frame]:
        """Return frames that give a peer all that is held now."""
        chunks = list(self._tree.replay_chunks())
        tokens = tuple(self._tokens)
        epoch = self._tree.epoch
        return (
            replay_frame(self._session, epoch, chunk, 0, tokens=tokens[chunk.rows])
            for chunk in chunks
        )
