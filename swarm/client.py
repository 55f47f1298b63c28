"""The SDK: ``async with SwarmClient(model) as client: print((await client.generate("...")).text)``."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from typing_extensions import Unpack

from swarm.config import Network, load_network
from swarm.errors import SwarmError
from swarm.generation import GenerationStream, Threads
from swarm.identity import Identity
from swarm.model.client import NO_PATTERNS, ClientModels
from swarm.network.directory import Directory
from swarm.network.discovery import Connections
from swarm.network.link import Dialer
from swarm.request import Options, Request
from swarm.results import Generation
from swarm.routing.chain import MissingLayers, plan
from swarm.session import ChainLink


class WrongWeights(SwarmError):
    """The swarm serves a model of this name, but other weights."""

    def __init__(self, model: str, ours: str, theirs: Sequence[str]) -> None:
        super().__init__(model, ours, theirs)
        self.model, self.ours, self.theirs = model, ours, tuple(theirs)

    def __str__(self) -> str:
        theirs = ", ".join(fingerprint[:12] for fingerprint in self.theirs)
        return (
            f"the swarm serves {self.model} with other weights than yours (fingerprint {theirs}, yours is "
            f"{self.ours[:12]}); use the same model folder or revision as its peers"
        )


class SwarmClient:
    """Generates text with a model that a swarm serves. Use it as an async context manager.

    Args:
        model: local folder or hub id; only the tokenizer, the final norm and the LM head are loaded.
        draft: local folder or hub id of a small model with the same tokenizer, or None to decode plainly.
        key_patterns: key tokens of your own, for relaxed verification: name to regular expression.
        bootstrap: multiaddrs of bootstrap nodes; by default those of ``bootstrap.toml`` or the environment.
        link_ms: emulated one-way delay of what the client sends, for demonstrations.

    Raises:
        ConfigError: for a malformed address or network name, at once.
        NoBootstrap, ModelNotFound, UnsupportedModel, DraftMismatch: on entering.
    """

    def __init__(
        self,
        model: str,
        *,
        draft: str | None = None,
        key_patterns: Mapping[str, str] = NO_PATTERNS,
        bootstrap: Sequence[str] = (),
        network: Network | None = None,
        link_ms: float = 0.0,
    ) -> None:
        self._model, self._draft, self._key_patterns, self._link_ms = model, draft, key_patterns, link_ms
        self._network = network or load_network(bootstrap=bootstrap)

    async def __aenter__(self) -> "SwarmClient":
        async with contextlib.AsyncExitStack() as life:
            self._threads = Threads(self._thread(life, "draft"), self._thread(life, "judge"))
            loading = asyncio.get_running_loop().run_in_executor(self._threads.judging, self._load)
            # Of two failures the first is told; the other must not be printed when it is collected.
            loading.add_done_callback(lambda done: done.cancelled() or done.exception())
            directory = await Directory.join(Identity.generate(), self._network, client_mode=True)
            self._directory = await life.enter_async_context(directory)
            self.models = await loading
            dialer = Dialer(self._link_ms)
            life.push_async_callback(dialer.close)
            self._connections = Connections(dialer)
            life.push_async_callback(self._connections.close)
            self._life = life.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._life.aclose()

    @staticmethod
    def _thread(life: contextlib.AsyncExitStack, name: str) -> ThreadPoolExecutor:
        thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        life.callback(thread.shutdown, wait=False, cancel_futures=True)
        return thread

    def _load(self) -> ClientModels:
        models = ClientModels.load(self._model, self._draft, self._key_patterns)
        _ = models.checkpoint.fingerprint  # reads all weights of a local folder: here, not on the event loop
        return models

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> GenerationStream:
        """Generate piece by piece: ``async for piece in client.stream(prompt): ...``.

        Args:
            prompt: text, or token ids.
            options: see `Options`.

        Raises:
            RequestError, SamplingError, RuleError: for values out of range, at once.
            PromptTooLong, MissingLayers, WrongWeights, ChainBroken: while iterating.
        """
        request = Request.of(options)
        ids = self.models.tokenizer(prompt).input_ids if isinstance(prompt, str) else prompt
        return GenerationStream(self.models, ids, request, self._threads, self.find_chain)

    async def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation:
        """Generate to the end. Arguments and errors are those of `stream`."""
        stream = self.stream(prompt, **options)
        async for _ in stream:
            pass
        return stream.result

    async def find_chain(self) -> list[ChainLink]:
        """The chain that a generation would take now: of the peers that answer, the fewest, then the nearest.

        Raises:
            MissingLayers: if these peers leave layers out.
            WrongWeights: if the model is served, but with other weights.
        """
        checkpoint = self.models.checkpoint
        records = await self._directory.peers(checkpoint.fingerprint, checkpoint.num_layers)
        usable = {record.peer_id: record for record in records if record.state == "online"}
        reached = await self._connections.reach(list(usable.values()))
        rtt_ms = {peer_id: connection.rtt_ms for peer_id, connection in reached.items()}
        try:
            stages = plan(list(usable.values()), checkpoint.num_layers, rtt_ms, self._model)
        except MissingLayers:
            if not usable:
                await self._blame_weights()
            raise
        return [ChainLink(stage, usable[stage.peer_id], reached[stage.peer_id]) for stage in stages]

    async def _blame_weights(self) -> None:
        """Nobody serves our fingerprint: say so if somebody serves the model's name."""
        checkpoint = self.models.checkpoint
        others = [m.fingerprint for m in await self._directory.models() if m.model == checkpoint.name]
        if others:
            raise WrongWeights(self._model, checkpoint.fingerprint, others)
