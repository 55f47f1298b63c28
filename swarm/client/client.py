"""The SDK:
``async with SwarmClient(model) as client: print((await client.generate("...")).text)``."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from typing_extensions import TypedDict, Unpack

from swarm.audit.ledger import Ledger
from swarm.chain.book import PeerBook
from swarm.chain.router import Router
from swarm.chain.stage import ChainLink
from swarm.client.auditor import Auditor
from swarm.client.batch import DEFAULT_AT_ONCE, every_one
from swarm.client.conversation import Message, by_template
from swarm.client.generation import Executors, GenerationStream
from swarm.client.lookout import Lookout
from swarm.client.models import NO_PATTERNS, ClientModels
from swarm.client.prompt import encoded
from swarm.client.scoring import Reader, Reading
from swarm.client.session_cache import SessionCache
from swarm.client.status import ModelStatus, entry_of, look_at
from swarm.config import Network, load_network
from swarm.errors import ConfigError, DirectoryDown, NoBootstrap, RequestError
from swarm.identity import Identity
from swarm.keylock import held
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import look
from swarm.model.quantization import named
from swarm.model.rehearsal import rehearsed
from swarm.network.dht.directory import Directory, node_of_client
from swarm.network.known_peers import AddressBook, Standing
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections
from swarm.outputs import Audits, Generation
from swarm.request import Options, Request
from swarm.routing.health import Health
from swarm.util.tasks import end, within
from swarm.wire.handshake import LocalMember
from swarm.wire.messages import MAX_CLIENTS

DEFAULT_AUDIT_RATE = 0.01


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of `SwarmClient`, which says what they mean; all may be left out."""

    draft: str | None
    key_patterns: Mapping[str, str]
    bootstrap: Sequence[str]
    network: Network | None
    link_ms: float
    block: Collection[str]
    allow: Collection[str]
    identity: Identity | None
    cache: Path | None
    audit_rate: float
    quantization: str | None
    speaks_for: int


class SwarmClient:
    """Generates text with a model that a swarm serves. Use it as an async context manager.

    Args:
        model: local folder or hub id; only the tokenizer, the final norm and the LM head are
            loaded.
        draft: local folder or hub id of a small model with the same tokenizer, or None to decode
            plainly.
        key_patterns: key tokens of your own, for relaxed verification: name to regular expression.
        bootstrap: multiaddrs of bootstrap nodes; by default those of ``bootstrap.toml`` or the
            environment.
        link_ms: emulated one-way delay of what the client sends, for demonstrations.
        block: ids of peers that are never used.
        allow: if any are named, only these peers are used.
        identity: who we are; by default somebody new each time. A swarm with a list of members
            knows its clients by it.
        cache: a folder where peers and nodes that were good, and peers that lied, are noted for the
            next start; None notes nothing.
        audit_rate: how likely a text is computed again by other peers at least, in the background,
            to notice peers that lie; 0 never does. Peers that are new or under suspicion are
            audited more often.
        quantization: ``int8`` or ``nf4`` for peers that hold the weights so, which is another swarm
            and gives other texts; by default the weights as they are.
        speaks_for: how many clients a gateway asks for. What one client may ask of a peer, it may
            ask so many times, as far as the peer's operator lets it.

    Raises:
        ConfigError: for a malformed address or network name, an unknown quantization, an audit rate
            that is no share, or a number of clients out of range, at once.
        NoBootstrap, ModelNotFound, DamagedModel, UnsupportedModel, DraftMismatch: on entering.
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
        block: Collection[str] = (),
        allow: Collection[str] = (),
        identity: Identity | None = None,
        cache: Path | None = None,
        audit_rate: float = DEFAULT_AUDIT_RATE,
        quantization: str | None = None,
        speaks_for: int = 1,
    ) -> None:
        if not 1 <= speaks_for <= MAX_CLIENTS:
            raise ConfigError(
                "speaks_for",
                f"{speaks_for} is no number of clients; give one from 1 to {MAX_CLIENTS}",
            )
        if not 0 <= audit_rate <= 1:
            raise ConfigError(
                "audit_rate", f"{audit_rate} is no share of all texts; give a number from 0 to 1"
            )
        self._audit_rate, self._quantization = audit_rate, named(quantization)
        self._speaks_for = speaks_for
        self._model, self._draft, self._key_patterns, self._link_ms = (
            model,
            draft,
            key_patterns,
            link_ms,
        )
        self._network = network or load_network(bootstrap=bootstrap)
        self._me = LocalMember(identity or Identity.generate(), self._network)
        self._node = node_of_client(self._me.identity, self._network)
        self._book = AddressBook(cache, self._network.name) if cache else None
        self._standings = self._book.standings() if self._book else {}
        bans = {
            peer_id: each.banned_until
            for peer_id, each in self._standings.items()
            if each.banned_until
        }
        self._health = Health(time.monotonic, time.time, block, allow, bans)
        self._loaded: ClientModels | None = None

    @property
    def models(self) -> ClientModels:
        """What the client itself computes with.

        Raises RuntimeError outside of the ``async with`` block.
        """
        if self._loaded is None:
            raise RuntimeError("the client is not open: use it in an `async with` block")
        return self._loaded

    async def __aenter__(self) -> "SwarmClient":
        async with contextlib.AsyncExitStack() as life:
            self._threads = Executors(self._thread(life, "draft"), self._thread(life, "judge"))
            loop = asyncio.get_running_loop()
            # What is wrong with the models is said before anything is asked of a network.
            checkpoint = await loop.run_in_executor(self._threads.judging, self._look)
            loading = loop.run_in_executor(self._threads.judging, self._load, checkpoint)
            # Of two failures the first is told; the other must not be printed when it is collected.
            loading.add_done_callback(lambda done: done.cancelled() or done.exception())
            life.enter_context(held(self._node.file, alone=False))
            self._directory = await life.enter_async_context(await self._enter())
            self._loaded = await loading
            dialer = Dialer(self._me, self._link_ms, self._directory.streams, self._speaks_for)
            life.push_async_callback(dialer.close)
            connections = Connections(dialer)
            life.push_async_callback(connections.close)
            checkpoint = self.models.checkpoint
            known = self._book.peers(checkpoint.fingerprint) if self._book else ()
            ledger = Ledger(
                {peer_id: each.clean for peer_id, each in self._standings.items() if each.clean}
            )
            self._lookout = Lookout(dialer, connections)
            life.push_async_callback(self._lookout.close)
            self._router = Router(
                self._directory,
                connections,
                checkpoint,
                PeerBook(checkpoint.num_layers, self._health, known),
                ledger,
            )
            life.push_async_callback(self._remember)
            self._kept = SessionCache(self._router.trust)
            self._router.trust.when_banned.append(self._kept.shed)
            life.push_async_callback(self._kept.close)
            self._auditor = Auditor(
                self._router, self.models, self._threads.judging, self._audit_rate
            )
            auditing = asyncio.create_task(self._auditor.run())
            life.push_async_callback(end, auditing)
            self._life = life.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._life.aclose()

    async def _enter(self) -> Directory:
        """Enter the DHT: through nodes that let us in before, if no bootstrap node does; and greet
        those anyway."""
        nodes = self._book.nodes() if self._book else ()
        try:
            return await Directory.join(self._node, self._network, known=nodes, client_mode=True)
        except NoBootstrap:
            if not nodes:
                raise
            known = replace(self._network, bootstrap=nodes)
            return await Directory.join(self._node, known, client_mode=True)

    async def _remember(self) -> None:
        """Note who was good, for the next start."""
        if self._book is None:
            return
        try:
            nodes = await self._directory.contacts()
        except DirectoryDown:
            nodes = []
        bans, clean = self._health.bans, self._router.ledger.clean
        standings = {
            peer_id: Standing(clean=clean.get(peer_id, 0), banned_until=bans.get(peer_id, 0.0))
            for peer_id in {**clean, **bans}
        }
        self._book.remember(nodes, self.models.checkpoint.fingerprint, self._router.good, standings)

    @staticmethod
    def _thread(life: contextlib.AsyncExitStack, name: str) -> ThreadPoolExecutor:
        thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        life.callback(thread.shutdown, wait=False, cancel_futures=True)
        return thread

    def _look(self) -> Checkpoint:
        """Open the model without reading its weights, and check that a client can use it."""
        checkpoint = Checkpoint.open(self._model, self._quantization)
        rehearsed(checkpoint)
        checkpoint.tokenizer()
        if self._draft is not None:
            look(self._draft, draft=True)
        return checkpoint

    def _load(self, checkpoint: Checkpoint) -> ClientModels:
        models = ClientModels.of(checkpoint, self._draft, self._key_patterns)
        # reads all weights of a local folder: here, not on the event loop
        _ = models.checkpoint.fingerprint
        return models

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> GenerationStream:
        """Generate piece by piece: ``async for piece in client.stream(prompt): ...``.

        Args:
            prompt: text, or token ids.
            options: see `Options`.

        Raises:
            RequestError, SamplingError, RuleError: for values out of range, at once.
            PromptTooLong, MissingLayers, WrongWeights, OtherQuantization, SwarmIncomplete: while
                iterating.
        """
        request = Request.of(options)
        ids = self._ids(prompt)
        return GenerationStream(
            self.models, ids, request, self._threads, self._router, self._auditor, self._kept
        )

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The token ids after which the answer to a conversation begins, by the model's chat
        template.

        Raises:
            NoChatTemplate: if the model has none.
            TemplateRefuses: if it has no form for these messages.
        """
        return by_template(self.models.tokenizer, self._model)(messages)

    def _ids(self, prompt: str | Sequence[int]) -> Sequence[int]:
        return encoded(self.models.tokenizer, prompt) if isinstance(prompt, str) else prompt

    async def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation:
        """Generate to the end. Arguments and errors are those of `stream`."""
        stream = self.stream(prompt, **options)
        async for _ in stream:
            pass
        return stream.result

    async def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        at_once: int = DEFAULT_AT_ONCE,
        **options: Unpack[Options],
    ) -> list[Generation]:
        """Generate from many prompts side by side, ``at_once`` at a time; results come in the order
        of the prompts.

        With a ``seed``, the first prompt takes it and each one behind it the next number: equal
        prompts give different texts, and the same ones every time.

        Raises:
            RequestError, SamplingError, RuleError: for values out of range, before anything is
                generated.
            BatchFailed: at the end, if some generations failed; it holds what the others gave.
        """
        if isinstance(prompts, str):
            raise RequestError("prompts", prompts, "a list of prompts")
        works = []
        for place, prompt in enumerate(prompts):
            own = options.copy()
            if (seed := options.get("seed")) is not None:
                own["seed"] = seed + place
            Request.of(own)
            works.append(functools.partial(self.generate, prompt, **own))
        return await every_one(works, at_once)

    async def read(self, prompt: str | Sequence[int], *, logits_to_keep: int = 0) -> Reading:
        """What the model says at every token of a text, without writing any: hidden states and
        logits.

        The chain sends the hidden states of all tokens back, 2 or 4 bytes for each of their
        dimensions. They are not audited.

        Args:
            logits_to_keep: how many of the last tokens' logits are computed; 0 is all.

        Raises:
            RequestError, PromptTooLong: if the model cannot take this text.
            MissingLayers, WrongWeights, ChainBroken, ChainSilent: if no chain is found, or several
                fail.
        """
        return await Reader(self.models, self._threads, self._router).read(
            self._ids(prompt), logits_to_keep
        )

    @property
    def audits(self) -> Audits:
        """What became of the texts that were to be audited, so far."""
        return self._auditor.audits

    async def settle(self, seconds: float) -> Audits:
        """Wait until all texts that were written are audited, as far as they are to be, but no
        longer than that."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(seconds, self._auditor.settle())
        return self.audits

    async def find_chain(self) -> list[ChainLink]:
        """The chain that a generation would take now: of the peers that answer, those with the
        shortest loop.

        Raises:
            MissingLayers: if these peers leave layers out.
            WrongWeights: if the model is served, but with other weights.
            OtherQuantization: if these weights are served, but stored another way.
        """
        return await self._router.chain()

    async def look(self) -> ModelStatus:
        """Who serves which layers of the model, and who of them answers now.

        Raises:
            DirectoryDown: if no node of the network answers.
        """
        checkpoint = self.models.checkpoint
        return await look_at(
            entry_of(checkpoint), self._directory, self._lookout, checkpoint.siblings
        )
