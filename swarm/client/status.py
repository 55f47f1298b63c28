"""What a client sees of a swarm: models, their peers, and which layers are missing."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from swarm.chain.book import PeerBook
from swarm.chain.choice import Choice
from swarm.chain.router import Router
from swarm.client.connect import connect
from swarm.client.incomplete import Elsewhere, found_elsewhere, reason
from swarm.client.pinger import Path, Pinger, PingResult
from swarm.config import Network
from swarm.identity import Identity
from swarm.model.quantization import named
from swarm.network.dht.directory import Directory
from swarm.network.dht.lookup import ModelEntry
from swarm.network.dht.records import PeerRecord
from swarm.routing.chain import gaps
from swarm.routing.health import Health
from swarm.wire.handshake import LocalMember

if TYPE_CHECKING:  # it imports transformers, which only a question about one model needs
    from swarm.model.checkpoint import Checkpoint

MAX_MODELS = 100  # those with most peers are shown: anyone may claim to serve anything
ENOUGH_PEERS = 1024  # of one model: with more, a sample of them is shown

NO_SIBLINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class PeerStatus:
    """One peer, by its record and by whether it answers.

    Attributes:
        layers: the span ``[a, b)`` that it serves.
        head: it holds the model's head, too.
        rtt_ms: round trip; None if it does not answer.
        path: how it answers: direct or relay; None if it does not.
    """

    peer_id: str
    layers: tuple[int, int]
    dtype: str
    tokens_per_second: float
    free_cache_tokens: int
    state: str
    software: str
    rtt_ms: float | None
    path: Path | None
    head: bool = False


@dataclass(frozen=True)
class ModelStatus:
    """One model.

    Attributes:
        peers: all of them, or a sample of a large swarm.
        missing: the spans ``[a, b)`` that no answering peer serves.
        estimated_peers: about how many peers a large swarm has; None if ``peers`` are all.
        elsewhere: what the swarm serves in place of the missing layers.
    """

    model: str
    fingerprint: str
    model_layers: int
    peers: tuple[PeerStatus, ...]
    missing: tuple[tuple[int, int], ...]
    estimated_peers: int | None = None
    elsewhere: tuple[Elsewhere, ...] = ()

    @property
    def why(self) -> str:
        """Why the model cannot be used now, in a sentence; empty if it can."""
        return reason(self.model, self.model_layers, self.peers, self.missing, self.elsewhere)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"why": self.why}


async def routes(
    network: Network, model: str, identity: Identity | None = None, quantization: str | None = None
) -> list[Choice]:
    """Return the chain that a new client would take now, and the runner-up.

    Raises:
        ConfigError, NoBootstrap, DirectoryDown, ModelNotFound, DamagedModel, UnsupportedModel,
        MissingLayers, WrongWeights, OtherQuantization.
    """
    from swarm.model.checkpoint import Checkpoint

    loop = asyncio.get_running_loop()
    checkpoint = await loop.run_in_executor(None, Checkpoint.open, model, named(quantization))
    # reads all weights of a local folder
    await loop.run_in_executor(None, lambda: checkpoint.fingerprint)
    async with connect(LocalMember(identity or Identity.generate(), network)) as swarm:
        book = PeerBook(checkpoint.num_layers, Health(time.monotonic, time.time))
        return await Router(swarm.directory, swarm.connections, checkpoint, book).choices()


async def look(
    network: Network,
    model: str | None = None,
    identity: Identity | None = None,
    quantization: str | None = None,
) -> list[ModelStatus]:
    """Return the state of one model, whole or not, or of every model of the network.

    Args:
        model: a folder or hub id; None for all models.
        quantization: how the peers of that model store its weights.

    Raises:
        ConfigError, NoBootstrap, DirectoryDown, ModelNotFound, DamagedModel, UnsupportedModel.
    """
    asked = None
    if model is not None:
        asked = await asyncio.get_running_loop().run_in_executor(None, _entry, model, quantization)
    async with connect(LocalMember(identity or Identity.generate(), network)) as swarm:
        pinger = Pinger(swarm.dialer, swarm.connections)
        try:
            if asked is None:
                entries = (await swarm.directory.models())[:MAX_MODELS]
                return [await look_at(entry, swarm.directory, pinger) for entry in entries]
            entry, siblings = asked
            return [await look_at(entry, swarm.directory, pinger, siblings)]
        finally:
            await pinger.close()


def _entry(model: str, quantization: str | None) -> tuple[ModelEntry, Mapping[str, str]]:
    """Look up one model. Reads all weights of a local folder, so it must run in a thread."""
    from swarm.model.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(model, named(quantization))
    return entry_of(checkpoint), checkpoint.siblings


def entry_of(checkpoint: "Checkpoint") -> ModelEntry:
    """Return what a directory is asked for. Reads all weights of a local folder, once."""
    return ModelEntry(checkpoint.name, checkpoint.fingerprint, checkpoint.num_layers, 0)


async def look_at(
    entry: ModelEntry,
    directory: Directory,
    pinger: Pinger,
    siblings: Mapping[str, str] = NO_SIBLINGS,
) -> ModelStatus:
    """Return the state of one model now: its records, and which of its peers answer.

    Args:
        siblings: the same weights stored another way: fingerprint -> name of the quantization.

    Raises:
        DirectoryDown: if no node of the network answers.
    """
    sample = await directory.survey(entry.fingerprint, entry.model_layers, ENOUGH_PEERS)
    answers = await pinger.ask(sample.records)
    usable = [
        record
        for record in sample.records
        if record.peer_id in answers and record.state == "online"
    ]
    missing = tuple(gaps(usable, entry.model_layers))
    return ModelStatus(
        entry.model,
        entry.fingerprint,
        entry.model_layers,
        tuple(_peer(record, answers.get(record.peer_id)) for record in sample.records),
        missing,
        None if sample.complete else sample.total,
        found_elsewhere(entry, await directory.models(), siblings) if missing else (),
    )


def _peer(record: PeerRecord, answer: PingResult | None) -> PeerStatus:
    return PeerStatus(
        record.peer_id,
        (record.first_layer, record.last_layer),
        record.dtype,
        record.tokens_per_second,
        record.free_cache_tokens,
        record.state,
        record.software,
        answer.rtt_ms if answer is not None else None,
        answer.path if answer is not None else None,
        record.head,
    )
