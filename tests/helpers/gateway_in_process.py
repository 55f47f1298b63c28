"""A gateway over a swarm in this process, for tests of what HTTP clients see.

Models, peers and sockets are real: those of the demo.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import aiohttp
from openai import AsyncOpenAI
from typing_extensions import Unpack

from helpers.swarm_in_process import Material, Swarm, swarm_of
from swarm.chain.stage import ChainLink
from swarm.client.generation import GenerationStream
from swarm.client.models import ClientModels
from swarm.client.scoring import Scorer
from swarm.client.status import ModelStatus, entry_of, look_at
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.problems import problems
from swarm.gateway.server import Settings, serving
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.outputs import Audits, Piece
from swarm.request import Options, Request

SPANS = ((0, 4), (4, 8))
PROBLEM = min(islice(problems(7, held_out=True), 16), key=lambda problem: len(problem.text))


def demo_material() -> Material:
    """Load the demo's models for a swarm in this process."""
    checkpoint = Checkpoint.open(locate(TARGET))
    spans = {span: Span.load(checkpoint, *span) for span in SPANS}
    return Material(checkpoint, spans, ClientModels.load(locate(TARGET), locate(DRAFT)))


class InProcessClient:
    """A client of a swarm in this process, with the interface of a `SwarmClient`."""

    def __init__(self, swarm: Swarm, patience_s: float = 20.0) -> None:
        self.swarm = swarm
        self.models = swarm._models
        self._patience_s = patience_s

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> GenerationStream:
        assert not isinstance(prompt, str)
        request = Request.of({"patience_s": self._patience_s, **options})
        return GenerationStream(
            self.models,
            prompt,
            request,
            self.swarm._threads,
            self.swarm.router,
            kept=self.swarm.kept,
            memory=self.swarm.memory,
        )

    async def score(self, prompt: Sequence[int], *, likely: int = 0) -> list[Piece]:
        scorer = Scorer(self.models, self.swarm._threads, self.swarm.router)
        return await scorer.score(prompt, likely)

    @property
    def audits(self) -> Audits:
        return self.swarm.auditor.audits if self.swarm.auditor else Audits()

    async def find_chain(self) -> list[ChainLink]:
        return await self.swarm.router.chain()

    async def look(self) -> ModelStatus:
        return await look_at(entry_of(self.models.checkpoint), self.swarm, self.swarm._connections)  # type: ignore[arg-type]


@dataclass
class Served:
    """A running gateway, the swarm behind it, and clients of it."""

    url: str
    swarm: Swarm
    openai: AsyncOpenAI
    http: aiohttp.ClientSession

    @property
    def sessions(self) -> int:
        """Sessions open on all peers, without those that are cached until a chat continues."""
        return sum(len(peer.handler.sessions) - len(self.swarm.kept) for peer in self.swarm.up)

    async def post(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Any]:
        """Return the status, the headers and the JSON of an answer."""
        async with self.http.post(self.url + path, json=body, headers=headers) as response:
            return response.status, response.headers, await response.json()

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, bytes]:
        async with self.http.get(self.url + path, headers=headers) as response:
            return response.status, response.headers, await response.read()


def named(material: Material, name: str) -> Material:
    """Return the same model under another name."""
    checkpoint = copy(material.checkpoint)
    checkpoint.name = name
    models = replace(material.models, checkpoint=checkpoint)
    return replace(material, checkpoint=checkpoint, models=models)


@asynccontextmanager
async def gateway_over(
    material: Material,
    spans: Sequence[tuple[int, int]] = SPANS,
    key: str = "no key",
    patience_s: float = 20.0,
    beside: Sequence[Material] = (),
    **settings: Any,
) -> AsyncIterator[Served]:
    """Serve a model within the block; at its end no peer may hold a session any more.

    Models ``beside`` it have swarms of their own.
    """
    async with AsyncExitStack() as stack:
        swarms = [
            await stack.enter_async_context(
                swarm_of(partial(Swarm, each), *spans, cache_tokens=65536, max_positions=1024)
            )
            for each in (material, *beside)
        ]
        clients = [InProcessClient(swarm, patience_s) for swarm in swarms]
        url = await stack.enter_async_context(serving(clients, Settings(port=0, **settings)))
        openai = await stack.enter_async_context(
            AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Served(url, swarms[0], openai, http)


def chat(content: str = PROBLEM.question, **more: Any) -> dict[str, Any]:
    """Return the body of a greedy chat of one message."""
    messages = [{"role": "user", "content": content}]
    return {"model": TARGET, "messages": messages, "temperature": 0, **more}
