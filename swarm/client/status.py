"""What a swarm looks like from here: models, their peers, and which layers are missing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from swarm.chain.book import PeerBook
from swarm.chain.choice import Choice
from swarm.chain.router import Router
from swarm.client.incomplete import Elsewhere, found_elsewhere, reason
from swarm.client.lookout import Answer, Lookout, Path
from swarm.config import Network
from swarm.identity import Identity
from swarm.keylock import held
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import named
from swarm.network.dht.directory import Directory, node_of_client
from swarm.network.dht.lookup import ModelEntry
from swarm.network.dht.records import PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections
from swarm.routing.chain import gaps
from swarm.routing.health import Health
from swarm.wire.handshake import LocalMember

MAX_MODELS = 100  # of those with most peers: anybody may claim to serve anything
ENOUGH_PEERS = 1024  # of one model: with more, a sample of them is shown

NO_SIBLINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class PeerStatus:
    """One peer by its record; ``rtt_ms`` is None if it does not answer.

    ``path`` is how it answers: direct or relay.
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


@dataclass(frozen=True)
class ModelStatus:
    """One model; ``missing`` are the spans ``[a, b)`` that no answering peer serves.

    Of a large swarm ``peers`` are a sample, and ``estimated_peers`` is about how many there are;
    else it is None. ``elsewhere`` is what the swarm serves in the place of layers that are missing.
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
    """The chain that a new client would take now, and the runner-up.

    Raises:
        ConfigError, NoBootstrap, DirectoryDown, ModelNotFound, DamagedModel, UnsupportedModel,
        MissingLayers, WrongWeights, OtherQuantization.
    """
    loop = asyncio.get_running_loop()
    checkpoint = await loop.run_in_executor(None, Checkpoint.open, model, named(quantization))
    # reads all weights of a local folder
    await loop.run_in_executor(None, lambda: checkpoint.fingerprint)
    async with _entered(network, identity or Identity.generate()) as (directory, _, connections):
        book = PeerBook(checkpoint.num_layers, Health(time.monotonic, time.time))
        return await Router(directory, connections, checkpoint, book).choices()


async def look(
    network: Network,
    model: str | None = None,
    identity: Identity | None = None,
    quantization: str | None = None,
) -> list[ModelStatus]:
    """The state of ``model`` (a folder or hub id; whole or not), quantized so, or of every model of
    the network.

    Raises:
        ConfigError, NoBootstrap, DirectoryDown, ModelNotFound, DamagedModel, UnsupportedModel.
    """
    asked = None
    if model is not None:
        asked = await asyncio.get_running_loop().run_in_executor(None, _entry, model, quantization)
    async with _entered(network, identity or Identity.generate()) as (
        directory,
        dialer,
        connections,
    ):
        lookout = Lookout(dialer, connections)
        try:
            if asked is None:
                entries = (await directory.models())[:MAX_MODELS]
                return [await look_at(entry, directory, lookout) for entry in entries]
            entry, siblings = asked
            return [await look_at(entry, directory, lookout, siblings)]
        finally:
            await lookout.close()


@contextlib.asynccontextmanager
async def _entered(
    network: Network, identity: Identity
) -> AsyncIterator[tuple[Directory, Dialer, Connections]]:
    """The directory of a network, and connections to its peers, direct or through relays."""
    node = node_of_client(identity, network)
    with held(node.file, alone=False):
        async with await Directory.join(node, network, client_mode=True) as directory:
            dialer = Dialer(LocalMember(identity, network), streams=directory.streams)
            connections = Connections(dialer)
            try:
                yield directory, dialer, connections
            finally:
                await connections.close()
                await dialer.close()


def _entry(model: str, quantization: str | None) -> tuple[ModelEntry, Mapping[str, str]]:
    """In a thread: the fingerprint of a local folder reads all its weights."""
    checkpoint = Checkpoint.open(model, named(quantization))
    return entry_of(checkpoint), checkpoint.siblings


def entry_of(checkpoint: Checkpoint) -> ModelEntry:
    """What to ask a directory for. Reads all weights of a local folder, once."""
    return ModelEntry(checkpoint.name, checkpoint.fingerprint, checkpoint.num_layers, 0)


async def look_at(
    entry: ModelEntry,
    directory: Directory,
    lookout: Lookout,
    siblings: Mapping[str, str] = NO_SIBLINGS,
) -> ModelStatus:
    """The state of one model now: its records, and which of its peers answer.

    Args:
        siblings: the same weights stored another way: fingerprint -> name of the quantization.

    Raises:
        DirectoryDown: if no node of the network answers.
    """
    sample = await directory.survey(entry.fingerprint, entry.model_layers, ENOUGH_PEERS)
    answers = await lookout.ask(sample.records)
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


def _peer(record: PeerRecord, answer: Answer | None) -> PeerStatus:
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
    )
