"""A minimal client that fails over as `failover` and `standby` do, for tests of the peers' side."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch

from helpers.loopback import Peer, ask, dialed, eventually, opening, session_id, soon, tokens_frame
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.links.link import Link
from swarm.wire.messages import (
    AcceptFrom,
    Accepting,
    Close,
    Fault,
    Frame,
    Opened,
    Reroute,
    Result,
    WireMessage,
)
from swarm.wire.token_tree import replayed

# Token 5 is followed by 21 and 22; 20, 31 and 41 are rejected branches.
PROMPT = tokens_frame(1, (11, 12, 13, 14, 15), tail=1)
TREE = tokens_frame(6, (20, 21, 22, 31), root=5, parents=(1, 2, 1, 2))
TEXT = (11, 12, 13, 14, 15, 21, 22)
ROOT = 8  # the serial of token 22
LOST = tokens_frame(10, (23, 24, 41), root=8, parents=(2, 1, 4))
AGAIN = tokens_frame(13, (23, 24, 41), root=8, parents=(5, 1, 7), epoch=1)
AFTER = tokens_frame(16, (25,), root=13, parents=(2,), epoch=1)
PATHS = [(23,), (23, 24), (41,)]  # from the end of the text to each token of LOST and AGAIN


@dataclass
class Stage:
    """A peer of the chain and the client's link to it."""

    peer: Peer
    link: Link
    first: int
    last: int


class Chain:
    """The client's end of a chain."""

    def __init__(self, peers: AsyncExitStack, tiny: Checkpoint) -> None:
        self.stages: list[Stage] = []
        self._peers = peers
        self._tiny = tiny

    async def start(self, *cuts: int, history_bytes: int = 1 << 20) -> list[Stage]:
        """Start peers for the layers between the cuts."""
        stages = []
        for first, last in pairwise(cuts):
            span = Span.load(self._tiny, first, last)
            peer = Peer(span, self._tiny.fingerprint, history_bytes=history_bytes)
            await self._peers.enter_async_context(peer)
            link = await self._peers.enter_async_context(dialed(peer.server))
            stages.append(Stage(peer, link, first, last))
        return stages

    async def open(
        self,
        stages: list[Stage],
        behind: Stage | None,
        before: Stage | None = None,
        beside: Stage | None = None,
    ) -> None:
        """Open sessions on peers between two others, or beside one that goes on."""
        for previous, stage, following in zip(
            [before, *stages], stages, [*stages[1:], behind], strict=False
        ):
            message = opening(
                self._tiny.fingerprint,
                stage.first,
                stage.last,
                next=following.peer.server.hop if following else None,
                previous=previous.peer.id if previous else None,
            )
            await stage.link.send(message)
            assert isinstance(await soon(stage.link.receive()), Opened)
        if behind is not None:
            await self.heed(behind, *filter(None, (beside, stages[-1])))

    async def heed(self, stage: Stage, *speakers: Stage) -> None:
        """Let a peer take frames from these."""
        ids = tuple(speaker.peer.id for speaker in speakers)
        assert await ask(stage.link, AcceptFrom(session=session_id(), speakers=ids)) == Accepting(
            session=session_id(), speakers=ids
        )

    async def send(self, frame: Frame) -> None:
        await self.stages[0].link.send(frame)

    async def heard(self, place: int = -1) -> WireMessage:
        message: WireMessage = await soon(self.stages[place].link.receive())
        return message

    async def ask(self, frame: Frame) -> torch.Tensor:
        """Send a frame, and return the final hidden states of its tokens."""
        await self.send(frame)
        result = await self.heard()
        assert isinstance(result, Result), result
        assert (result.epoch, result.first, result.count) == (frame.epoch, frame.first, frame.count)
        return result.hidden.unpack()

    async def replace(self, start: int, end: int, *cuts: int) -> WireMessage | None:
        """Replace the peers ``[start, end)``, and return the answer of the peer before them."""
        new = await self.start(*cuts)
        behind = self.stages[end] if end < len(self.stages) else None
        await self.open(new, behind, self.stages[start - 1] if start else None)
        self.stages[start:end] = new
        further = len(new) - 1
        if start:
            hop = new[0].peer.server.hop
            message = Reroute(session=session_id(), epoch=1, root=ROOT, next=hop, replay=further)
            await self.stages[start - 1].link.send(message)
            return await self.heard(start - 1)
        for first, which, root, parents in replayed(ROOT, len(TEXT)):
            await self.send(
                tokens_frame(
                    first, TEXT[which], root=root, parents=parents, epoch=1, tail=0, replay=further
                )
            )
        return None

    async def die(self, *places: int) -> None:
        """Let peers vanish without a message."""
        for place in places:
            for link in [*self.stages[place].peer.server.links, self.stages[place].link]:
                link._transport.abort()
            if place and place - 1 not in places:
                fault = await self.heard(place - 1)
                assert isinstance(fault, Fault)
                assert fault.peer == self.stages[place].peer.server.identity.peer_id


@asynccontextmanager
async def chain(tiny: Checkpoint, *cuts: int, **options: int) -> AsyncIterator[Chain]:
    """Yield an open chain; at the end no peer may hold anything of it any more."""
    async with AsyncExitStack() as peers:
        client = Chain(peers, tiny)
        client.stages = await client.start(*cuts, **options)
        await client.open(client.stages, None)
        yield client
        for stage in client.stages:
            await stage.link.send(Close(session=session_id()))
        for stage in client.stages:
            await eventually(lambda peer=stage.peer: peer.idle)  # type: ignore[misc]


def at_the_end_of(span: Span, paths: list[tuple[int, ...]]) -> torch.Tensor:
    """Return the whole model's output behind the text and each of the paths."""
    texts = [torch.tensor((*TEXT, *path)) for path in paths]
    return torch.cat(
        [span.forward([Work.behind(span.new_cache(), text)])[0][-1:] for text in texts]
    )


async def begun(client: Chain) -> None:
    """Send the prompt and the first tree, after which the text is known."""
    await client.ask(PROMPT)
    await client.ask(TREE)


async def goes_on(client: Chain, span: Span) -> None:
    for frame, paths in ((AGAIN, PATHS), (AFTER, [(23, 24, 25)])):
        torch.testing.assert_close(
            await client.ask(frame), at_the_end_of(span, paths), rtol=1e-4, atol=1e-4
        )
