"""The SDK:
``async with SwarmClient(model) as client: print((await client.generate("...")).text)``."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from typing_extensions import Unpack

from swarm.audit.ledger import Ledger
from swarm.chain.book import PeerBook
from swarm.chain.router import Router
from swarm.chain.stage import ChainLink
from swarm.client.auditor import Auditor
from swarm.client.batch import DEFAULT_AT_ONCE, every_one
from swarm.client.connect import SwarmConnection, connect
from swarm.client.conversation import Message, by_template
from swarm.client.cpu_threads import Executors
from swarm.client.generation import GenerationStream
from swarm.client.head_choice import holds_head
from swarm.client.learned import OWN, LearnedBiases
from swarm.client.models import ClientModels
from swarm.client.pinger import Pinger
from swarm.client.prompt import encoded
from swarm.client.scoring import Reading, Scorer
from swarm.client.session_cache import SessionCache
from swarm.client.settings import ClientOptions, ClientSettings
from swarm.client.status import ModelStatus, entry_of, look_at
from swarm.client.text_memory import TextMemory
from swarm.config import load_network
from swarm.errors import DirectoryDown, RequestError
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.drafts.choice import find_draft
from swarm.model.drafts.dtype import check_compute
from swarm.model.quantization import named
from swarm.model.rehearsal import rehearsed
from swarm.network.known_peers import KnownPeers, Reputation
from swarm.outputs import Audits, Compute, Generation, Piece
from swarm.request import Options, Request
from swarm.routing.health import Health
from swarm.util.tasks import end, within
from swarm.wire.handshake import LocalMember


@dataclass(frozen=True)
class _Entered:
    """What a client has from entering its swarm until it leaves."""

    models: ClientModels
    threads: Executors
    swarm: SwarmConnection
    pinger: Pinger
    router: Router
    kept: SessionCache
    auditor: Auditor


class SwarmClient:
    """Generates text with a model that a swarm serves. Use it as an async context manager.

    Outside of the ``async with`` block everything but `check_models` raises RuntimeError.

    Args:
        model: folder, GGUF file or hub id; only the tokenizer, and the final norm and the LM head
            if the client holds them, are loaded.
        draft: folder, GGUF file or hub id of a small model with the same tokenizer, or of a head
            that reads this model's hidden states; ``mtp`` is the head inside this model's own
            checkpoint. None drafts without a model.
        key_patterns: key tokens of your own, for relaxed verification: name to regular expression.
        bootstrap: multiaddrs of bootstrap nodes; by default those of ``bootstrap.toml`` or the
            environment.
        network: the network to join, with its bootstrap nodes; by default the one that
            `swarm.load_network` finds. With it, ``bootstrap`` has no effect.
        link_ms: emulated one-way delay of what the client sends, for demonstrations.
        block: ids of peers that are never used.
        allow: if any are named, only these peers are used.
        identity: the client's key; by default a new one each time. A swarm with a list of members
            knows its clients by it.
        cache: a folder where good peers and nodes, peers that lied, and what the draft has learned
            are noted for the next start; None notes nothing.
        audit_rate: the least probability that a text is computed again by other peers, in the
            background, to notice peers that lie; 0 audits nothing. Peers that are new or under
            suspicion are audited more often.
        quantization: ``int8`` or ``nf4`` for peers that store the weights in fewer bits, which is
            another swarm and gives other texts; by default the weights as they are.
        head: who turns hidden states into predictions: the client (``local``), or the last peer of
            the chain (``peer``), which then tells the likeliest tokens. The client needs no memory
            for the head then, and decides all the same. ``auto`` is local if the head fits in
            memory.
        speaks_for: how many clients a gateway speaks for. It may ask that many times what one
            client may ask of a peer, as far as the peer's operator allows.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` for the LM head; by default the first GPU,
            if there is one and the model is not small.
        draft_device: likewise for the draft model; by default the same as ``device``.
        draft_dtype: ``float32``, ``bfloat16``, ``int8`` or ``nf4`` for the draft model's weights;
            by default the fastest one on this computer, measured. The text does not depend on it.
        draft_vocab: the tokens that the draft model's head computes: by default those that the
            target has, too; ``all`` of its own; or a number, so many of these, the most frequent.

    Raises:
        ConfigError: for a malformed address or network name, an unknown quantization, choice of the
            head, device, dtype or draft vocabulary, an audit rate that is no share, or a number of
            clients out of range, at once.
        NoBootstrap, ModelNotFound, DamagedModel, UnsupportedModel, DraftMismatch, NoSuchDevice: on
            entering.
    """

    def __init__(self, model: str, **options: Unpack[ClientOptions]) -> None:
        settings = self._settings = ClientSettings(model, **options)
        network = settings.network or load_network(bootstrap=settings.bootstrap)
        self._me = LocalMember(settings.identity or Identity.generate(), network)
        self._known = KnownPeers(settings.cache, network.name)
        self._reputations = self._known.reputations()
        bans = {
            peer_id: each.banned_until
            for peer_id, each in self._reputations.items()
            if each.banned_until
        }
        self._health = Health(time.monotonic, time.time, settings.block, settings.allow, bans)
        self._memory = TextMemory()
        self._checkpoint: Checkpoint | None = None
        self._learned: LearnedBiases | None = None
        self._life = contextlib.AsyncExitStack()
        self._now: _Entered | None = None

    @property
    def models(self) -> ClientModels:
        """What the client itself computes with."""
        return self._entered.models

    @property
    def _entered(self) -> _Entered:
        if self._now is None:
            raise RuntimeError("the client is not open: use it in an `async with` block")
        return self._now

    async def __aenter__(self) -> "SwarmClient":
        async with contextlib.AsyncExitStack() as life:
            self._now = await self._start(life)
            self._life = life.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._now = None
        await self._life.aclose()

    async def _start(self, life: contextlib.AsyncExitStack) -> _Entered:
        """Load the models and enter the swarm; ``life`` takes it all back in reverse order."""
        settings = self._settings
        threads = Executors(self._thread(life, "draft"), self._thread(life, "judge"))
        loop = asyncio.get_running_loop()
        # Errors in the models are raised before anything is asked of a network.
        checkpoint = await self.check_models()
        loading = loop.run_in_executor(threads.judging, self._load, checkpoint)
        # Of two failures the first is raised; the other must not be printed when it is collected.
        loading.add_done_callback(lambda done: done.cancelled() or done.exception())
        swarm = await life.enter_async_context(
            connect(
                self._me,
                known_nodes=self._known.nodes(),
                link_ms=settings.link_ms,
                speaks_for=settings.speaks_for,
            )
        )
        models = await loading
        threads = models.share_cores(threads)
        pinger = Pinger(swarm.dialer, swarm.connections)
        life.push_async_callback(pinger.close)
        router = self._route(swarm, models)
        life.push_async_callback(self._remember, swarm, router, models)
        kept = SessionCache(router.trust)
        router.trust.when_banned.append(kept.shed)
        life.push_async_callback(kept.close)
        life.push_async_callback(self._memory.close)
        auditor = Auditor(router, models, threads.judging, settings.audit_rate)
        life.push_async_callback(end, asyncio.create_task(auditor.run()))
        return _Entered(models, threads, swarm, pinger, router, kept, auditor)

    def _route(self, swarm: SwarmConnection, models: ClientModels) -> Router:
        """Return a router that begins with what the client remembers of peers."""
        checkpoint = models.checkpoint
        known = self._known.peers(checkpoint.fingerprint)
        needs_head = models.head is None
        cuts = rehearsed(checkpoint).cuts
        book = PeerBook(checkpoint.num_layers, self._health, known, needs_head, cuts)
        clean = {peer_id: each.clean for peer_id, each in self._reputations.items() if each.clean}
        return Router(swarm.directory, swarm.connections, checkpoint, book, Ledger(clean))

    async def _remember(self, swarm: SwarmConnection, router: Router, models: ClientModels) -> None:
        """Note which nodes and peers were good, which peers lied, and what the draft has learned,
        for the next start."""
        try:
            nodes = await swarm.directory.contacts()
        except DirectoryDown:
            nodes = []
        bans = self._health.bans
        clean = router.ledger.clean
        reputations = {
            peer_id: Reputation(clean=clean.get(peer_id, 0), banned_until=bans.get(peer_id, 0.0))
            for peer_id in {**clean, **bans}
        }
        fingerprint = models.checkpoint.fingerprint
        self._known.remember(nodes, fingerprint, router.good, reputations)
        if self._learned is not None and models.corrections is not None:
            self._learned.write(models.corrections.of(OWN))

    @staticmethod
    def _thread(life: contextlib.AsyncExitStack, name: str) -> ThreadPoolExecutor:
        thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        life.callback(thread.shutdown, wait=False, cancel_futures=True)
        return thread

    async def check_models(self) -> Checkpoint:
        """Open the models without reading their weights, and check that a client can use them.

        Entering the client does so first; a caller with several clients may do so for all of them
        before one enters a network. Of the draft model only the existence is checked.

        Raises:
            ModelNotFound, DamagedModel, UnsupportedModel.
            NoSuchDevice, ConfigError: if this computer cannot compute as it is asked to.
        """
        if self._checkpoint is None:
            self._checkpoint = await asyncio.to_thread(self._look)
        return self._checkpoint

    def _look(self) -> Checkpoint:
        settings = self._settings
        checkpoint = Checkpoint.open(settings.model, named(settings.quantization))
        rehearsed(checkpoint)
        checkpoint.tokenizer()
        check_compute(settings.compute)
        if settings.draft is not None:
            find_draft(settings.draft, checkpoint)
        return checkpoint

    def _load(self, checkpoint: Checkpoint) -> ClientModels:
        """Load what the client computes with. Reads all weights of a local folder, so it must not
        run on the event loop."""
        settings = self._settings
        models = ClientModels.of(
            checkpoint,
            settings.draft,
            settings.key_patterns,
            holds_head(settings.head, checkpoint),
            settings.compute,
        )
        fingerprint = models.checkpoint.fingerprint
        if models.corrections is not None and settings.draft is not None:
            self._learned = LearnedBiases(settings.cache, fingerprint, settings.draft)
            self._learned.read(models.corrections.of(OWN))
        return models

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> GenerationStream:
        """Generate piece by piece: ``async for piece in client.stream(prompt): ...``.

        Args:
            prompt: text, or token ids.
            options: see `Options`.

        Raises:
            RequestError, SamplingError, RuleError: for values out of range, at once.
            NeedsHead: for logits, hidden states or rejection sampling, if a peer holds the head.
            PromptTooLong, MissingLayers, WrongWeights, OtherQuantization, SwarmIncomplete: while
                iterating.
        """
        request = Request.of(options)
        ids = self._ids(prompt)
        now = self._entered
        return GenerationStream(
            now.models, ids, request, now.threads, now.router, now.auditor, now.kept, self._memory
        )

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt for the answer to a conversation, by the model's chat template.

        Raises:
            NoChatTemplate: if the model has none.
            TemplateRefuses: if it has no form for these messages.
        """
        return by_template(self.models.tokenizer, self._settings.model)(messages)

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
        """Generate from many prompts side by side, ``at_once`` at a time, and return the results in
        the order of the prompts.

        With a ``seed``, the first prompt uses it and each later one the next number: equal prompts
        give different texts, which are the same every time.

        Raises:
            RequestError, SamplingError, RuleError: for values out of range, before anything is
                generated.
            BatchFailed: at the end, if some generations failed; it holds the other results.
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
        """Return the hidden states and logits of every token of a text; nothing is generated.

        The chain sends the hidden states of all tokens back, 2 or 4 bytes for each dimension of
        each token. They are not audited.

        Args:
            logits_to_keep: how many of the last tokens' logits are computed; 0 is all.

        Raises:
            RequestError, PromptTooLong: if the model cannot take this text.
            NeedsHead: if a peer holds the head.
            MissingLayers, WrongWeights, ChainBroken, ChainSilent: if no chain is found, or several
                fail.
        """
        return await self._scorer().read(self._ids(prompt), logits_to_keep)

    async def score(self, prompt: str | Sequence[int], *, likely: int = 0) -> list[Piece]:
        """Return every token of a text with its log probability at temperature 1, in nats.

        The first token has none. Nothing is generated, and `read`'s errors are raised.

        Args:
            likely: how many of the likeliest tokens to tell at each place.
        """
        return await self._scorer().score(self._ids(prompt), likely)

    def _scorer(self) -> Scorer:
        now = self._entered
        return Scorer(now.models, now.threads, now.router)

    @property
    def compute(self) -> Compute:
        """Where the client computes its own part, and in which dtype it drafts."""
        return self.models.compute

    @property
    def audits(self) -> Audits:
        """The audits of this client's texts so far."""
        return self._entered.auditor.audits

    async def settle(self, seconds: float) -> Audits:
        """Wait until all texts that are due for an audit have been audited, for ``seconds`` at
        most."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(seconds, self._entered.auditor.settle())
        return self.audits

    async def find_chain(self) -> list[ChainLink]:
        """Return the chain that a generation would take now: the one with the shortest loop over
        peers that answer.

        Raises:
            MissingLayers: if these peers leave layers out.
            WrongWeights: if the model is served, but with other weights.
            OtherQuantization: if these weights are served, but stored another way.
        """
        return await self._entered.router.chain()

    async def look(self) -> ModelStatus:
        """Return which peers serve which layers of the model, and which of them answer now.

        Raises:
            DirectoryDown: if no node of the network answers.
        """
        now, checkpoint = self._entered, self.models.checkpoint
        return await look_at(
            entry_of(checkpoint), now.swarm.directory, now.pinger, checkpoint.siblings
        )
