"""A swarm in this process: real peers on loopback, and a client that knows them without a DHT."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from helpers.loopback import (
    WORDS,
    Peer,
    SharedHead,
    WatchedSpan,
    eventually,
    new_member,
    tiny_checkpoint,
    tokenizer_of,
)
from helpers.models import ARCHITECTURES, LAYERS, Architecture
from swarm.audit.guard import Guard
from swarm.chain.book import PeerBook
from swarm.chain.router import Router
from swarm.client.auditor import Auditor
from swarm.client.cpu_threads import Executors
from swarm.client.generation import GenerationStream
from swarm.client.models import ClientModels
from swarm.client.session_cache import SessionCache
from swarm.client.text_memory import TextMemory
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.network.dht.crawl import CrawlSample
from swarm.network.dht.lookup import ModelEntry
from swarm.network.dht.records import HEAD_TAG, PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections
from swarm.outputs import Generation
from swarm.request import Request
from swarm.routing.health import Health
from swarm.util.tasks import end

PROMPT = [5, 6, 7, 8, 9]
NEW = 32
STAGES = [(0, 1), (1, 3), (3, 4)]
# It streams, and a few tokens at most are on their way.
LITTLE_AHEAD: dict[str, Any] = {"lookup": False, "window": 2, "depth": 2}

Strike = Callable[["Swarm", GenerationStream], Awaitable[None]]


@dataclass(frozen=True)
class Material:
    """What swarms are made of, loaded once.

    Attributes:
        models: of the client. The draft model has the target's weights, slightly changed.
        head: that peers hold who end the model, for clients that have none.
        draft: the draft model's folder.
    """

    checkpoint: Checkpoint
    spans: Mapping[tuple[int, int], Span]
    models: ClientModels
    head: SharedHead | None = None
    draft: Path | None = None

    @property
    def without_head(self) -> "Material":
        """The same for a client that has no head of its own."""
        return replace(self, models=replace(self.models, head=None))

    @classmethod
    def load(
        cls,
        folder: Path,
        max_positions: int = 256,
        architecture: Architecture = ARCHITECTURES["llama"],
    ) -> "Material":
        tiny_checkpoint(folder / "target", max_positions, architecture)
        changed_slightly(architecture.save(folder / "draft")).save_pretrained(folder / "draft")
        for each in ("target", "draft"):
            tokenizer_of(WORDS).save_pretrained(folder / each)
        return cls.of(folder / "target", folder / "draft", folder / "cache")

    @classmethod
    def of(cls, target: Path, draft: Path, cache: Path) -> "Material":
        """Load a target of `LAYERS` layers and its draft, of which both have a tokenizer."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SWARM_CACHE", str(cache))
            checkpoint = Checkpoint.open(str(target))
            assert checkpoint.fingerprint
        spans = [(first, last) for first in range(LAYERS) for last in range(first + 1, LAYERS + 1)]
        return cls(
            checkpoint,
            {span: Span.load(checkpoint, *span) for span in spans},
            ClientModels.load(str(target), str(draft)),
            SharedHead(Head.load(checkpoint)),
            draft,
        )


def greedy_text(model: PreTrainedModel, prompt: Sequence[int]) -> tuple[int, ...]:
    """Return the new tokens of transformers alone: as many as the swarm's texts have."""
    tokens = [*prompt]
    with torch.inference_mode():
        for _ in range(NEW):
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            logits[2] = float("-inf")  # the end of a text, which the swarm is not to choose either
            tokens.append(int(logits.argmax()))
    return tuple(tokens[-NEW:])


def changed_slightly(model: PreTrainedModel) -> PreTrainedModel:
    """Change a model's weights so that it drafts well for what it was, and sometimes wrongly."""
    for parameter in model.parameters():
        parameter.data.add_(0.02 * parameter.data.std() * parameter.data.sign())
    return model


class Swarm:
    """Peers and a client.

    Attributes:
        up: the peers.
        states: of peers that are not online, by peer id.
    """

    def __init__(self, material: Material) -> None:
        self._checkpoint = material.checkpoint
        self._spans = material.spans
        self._models = material.models
        self._head = material.head
        self.up: list[Peer] = []
        self.states: dict[str, str] = {}
        self.health = Health(time.monotonic, time.time)
        self.auditor: Auditor | None = None
        # texts of one test do not draft those of another
        self.memory: TextMemory | None = None
        self._threads = Executors(ThreadPoolExecutor(1), ThreadPoolExecutor(1))
        self._dialer = Dialer(new_member())
        self._connections = Connections(self._dialer)
        self.know(())

    def know(self, records: Sequence[PeerRecord]) -> None:
        """Start with a new router, as a client that knew these peers before."""
        needs_head = self._models.head is None
        book = PeerBook(self._checkpoint.num_layers, self.health, records, needs_head)
        self.router = Router(self, self._connections, self._checkpoint, book)
        self.kept = SessionCache(self.router.trust)
        self.router.trust.when_banned.append(self.kept.shed)

    def survey_anew(self) -> None:
        """Let the next chain be chosen by a new survey, however fresh the last one is."""
        self.router.book.surveyed_at_s = float("-inf")

    async def add(self, *spans: tuple[int, int], **options: int) -> None:
        for first, last in spans:
            await self.join(self._spans[first, last], **options)

    async def join(self, span: Span, head: Any = None, **options: int) -> Peer:
        """Add one peer that computes this span.

        Where it ends the model, it holds the head, if the client has none.

        Args:
            head: in place of that.
        """
        watched = WatchedSpan(span)
        if head is None and self._models.head is None and span.last == LAYERS:
            head = self._head
        peer = Peer(
            watched,
            self._checkpoint.fingerprint,
            head=head,
            **{"cache_tokens": 4096, "max_positions": self._checkpoint.max_positions, **options},
        )  # type: ignore[arg-type]
        self.up.append(await peer.__aenter__())
        return peer

    @asynccontextmanager
    async def audits(self, rate: float = 1.0) -> AsyncIterator[Auditor]:
        """Audit the texts that are generated within the block."""
        self.auditor = Auditor(self.router, self._models, self._threads.judging, rate)
        auditing = asyncio.create_task(self.auditor.run())
        try:
            yield self.auditor
        finally:
            await end(auditing)

    async def survey(
        self, fingerprint: str, model_layers: int, enough: int = 0
    ) -> CrawlSample[PeerRecord]:
        records = tuple(self._record(peer) for peer in self.up)
        return CrawlSample(records, (1.0,) * len(records), len(records), True)

    async def models(self) -> list[ModelEntry]:
        return []

    def _record(self, peer: Peer) -> PeerRecord:
        return peer.server.record(
            first_layer=peer.span.first,
            last_layer=peer.span.last,
            fingerprint=self._checkpoint.fingerprint,
            model_layers=self._checkpoint.num_layers,
            state=self.states.get(peer.id, "online"),
            tokens_per_second=1000.0,
            software="0" + HEAD_TAG * (peer.scheduler.head is not None),
        )

    def connected(self, peer: Peer) -> bool:
        """Tell whether the client has a connection to a peer, in use or not."""
        return peer.id in self._connections._open

    def serving(self, stream: GenerationStream, stage: int) -> Peer:
        """Return the peer that serves a stage of a running generation."""
        peer_id = stream.route[stage].peer_id
        return next(peer for peer in self.up if peer.id == peer_id)

    def stream(self, prompt: Sequence[int] = PROMPT, **options: Any) -> GenerationStream:
        request = Request.of(
            {"max_new_tokens": NEW, "logit_bias": {2: -100.0}, "patience_s": 5.0, **options}
        )
        return GenerationStream(
            self._models,
            prompt,
            request,
            self._threads,
            self.router,
            self.auditor,
            self.kept,
            self.memory,
        )

    async def write(
        self, strike: Strike | None = None, at: int = NEW // 3, **options: Any
    ) -> Generation:
        """Generate a text, and call ``strike`` after ``at`` tokens.

        Nothing is copied then, and little is drafted ahead, unless that is asked for: the rest of a
        text could be on its way before the strike.
        """
        if strike is not None:
            options = {**LITTLE_AHEAD, **options}
        stream, said = self.stream(**options), 0
        async for _ in stream:
            said += 1
            if said == at and strike is not None:
                await strike(self, stream)
        return stream.result

    async def close(self) -> None:
        for peer in self.up:
            peer.span.go_on.set()
        await self.kept.close()
        if self.memory is not None:
            await self.memory.close()
        await self._connections.close()
        await self._dialer.close()
        for peer in self.up:
            await eventually(lambda peer=peer: peer.idle)
            await peer.__aexit__()


@asynccontextmanager
async def swarm_of(
    make: Callable[[], Swarm], *spans: tuple[int, int], **options: int
) -> AsyncIterator[Swarm]:
    """Yield a swarm; at the end no living peer may hold anything of any session."""
    swarm = make()
    await swarm.add(*spans, **options)
    yield swarm
    await swarm.close()


@pytest.fixture(scope="session")
def loaded_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Load the models once for all modules, which must leave them as they are."""
    return Material.load(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def material(loaded_material: Material) -> Material:
    """Return the models, with a client that has not seen the answers of other modules' peers."""
    return replace(loaded_material, models=replace(loaded_material.models, guard=Guard()))


@pytest.fixture
def make(material: Material) -> Callable[[], Swarm]:
    return lambda: Swarm(material)


@pytest.fixture(scope="session")
def expected(loaded_material: Material) -> tuple[int, ...]:
    """Return the token ids that an undisturbed chain generates."""

    async def write() -> Generation:
        async with swarm_of(lambda: Swarm(loaded_material), *STAGES) as swarm:
            return await swarm.write()

    return asyncio.run(write()).token_ids
