"""What a session has sent on, as the frames that tell it once more."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from peers.compute.history import History
from swarm.wire.messages import Frame, SessionId
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import ReplayChunk, TokenTree


def frames(
    session: SessionId,
    epoch: int,
    told: Iterable[ReplayChunk],
    rows: Callable[[slice], Tensor],
    replay: int,
) -> Iterator[Frame]:
    """Frames with the outputs of these ``rows``, made one by one as they are asked for."""
    for chunk in told:
        hidden = WireTensor.pack(rows(chunk.rows))
        yield Frame.again(session, epoch, chunk, replay, hidden=hidden)


def as_it_stands(session: SessionId, stream: TokenTree, history: History) -> Iterator[Frame]:
    """Frames with all that a session holds now, however long it takes until they are asked for, as
    long as its trunk stays.

    The trunk is not copied: its rows stay where they are, while what lies behind it comes and goes.
    """
    trunk = stream.trunk
    told = list(stream.replay_chunks())
    tail = history.rows(slice(trunk, None)).clone() if stream.length > trunk else None

    def rows(which: slice) -> Tensor:
        if tail is not None and which.start >= trunk:
            return tail[which.start - trunk : which.stop - trunk]
        return history.rows(which)

    return frames(session, stream.epoch, told, rows, replay=0)
