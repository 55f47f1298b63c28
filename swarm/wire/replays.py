"""Frames that give a peer what another one holds."""

from swarm.wire.fields import SessionId
from swarm.wire.messages import Frame
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import ReplayChunk


def replay_frame(
    session: SessionId,
    epoch: int,
    chunk: ReplayChunk,
    replay: int,
    *,
    tokens: tuple[int, ...] | None = None,
    hidden: WireTensor | None = None,
) -> Frame:
    """Return a replay of what ``chunk`` places: token ids, or hidden states.

    Args:
        replay: how many further peers replay it.
    """
    return Frame(
        session=session,
        epoch=epoch,
        root=chunk.root,
        first=chunk.first,
        tail=0,
        parents=chunk.parents,
        tokens=tokens,
        hidden=hidden,
        replay=replay,
    )
