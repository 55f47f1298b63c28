"""Makes the frames that replay what a session has sent on."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from peers.compute.history import History
from swarm.wire.fields import SessionId
from swarm.wire.messages import Frame
from swarm.wire.replays import replay_frame
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import ReplayChunk, TokenTree


def replay_frames(
    session: SessionId,
    epoch: int,
    chunks: Iterable[ReplayChunk],
    rows: Callable[[slice], Tensor],
    replay: int,
) -> Iterator[Frame]:
    """Yield frames with the outputs of these chunks, each made when it is asked for.

    Args:
        rows: returns rows of the session's outputs, ``[n, hidden]``.
        replay: how many further peers replay them.
    """
    for chunk in chunks:
        hidden = WireTensor.pack(rows(chunk.rows))
        yield replay_frame(session, epoch, chunk, replay, hidden=hidden)


def frames_as_held(session: SessionId, tree: TokenTree, history: History) -> Iterator[Frame]:
    """Yield frames with everything that a session holds at the call, also if they are made later.

    The trunk must stay. It is not copied, since its rows keep their places; what lies behind it is.
    """
    trunk = tree.trunk
    chunks = list(tree.replay_chunks())
    tail = history.rows(slice(trunk, None)).clone() if tree.length > trunk else None

    def rows(which: slice) -> Tensor:
        if tail is not None and which.start >= trunk:
            return tail[which.start - trunk : which.stop - trunk]
        return history.rows(which)

    return replay_frames(session, tree.epoch, chunks, rows, replay=0)
