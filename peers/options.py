"""What `swarm-peer join` was asked to do, and what can be checked before a network is entered."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import torch

from peers.access.limits import AccessLimits
from peers.compute.dtype import choose_dtype
from peers.compute.memory import DeviceMemory, MemoryBudget
from peers.compute.scripted import LoadSpan, scripted
from peers.ops.health_server import ListenAddress
from swarm.config import Network
from swarm.errors import ConfigError, SpanError
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import Quantization
from swarm.model.rehearsal import rehearsed
from swarm.model.span import Span
from swarm.routing.cuts import Cuts


@dataclass(frozen=True)
class PeerOptions:
    """What the operator of a peer decides."""

    model: str
    layers: tuple[int, int] | None  # None: those that the swarm needs most
    network: Network
    key_file: Path | None  # None: a new identity for this run only
    host: str  # to listen on
    port: int  # 0: any
    announce: str | None  # "host:port" that others can reach, if it is not what we listen on
    device: torch.device
    dtype: torch.dtype | None  # None: what `choose_dtype` finds best
    quantization: Quantization | None = None  # of the layers' weights
    cache_tokens: int | None = None  # None: as many as there is room for, up to a default
    memory: int | None = None  # bytes that may be used; None: what is free
    max_layers: int | None = None  # where the swarm's need chooses them
    grace_s: float = 5.0  # for sessions, before they have to go on elsewhere
    gateway_clients: int = AccessLimits.gateway_clients  # that one gateway may ask for
    threads: int | None = None  # of the CPU; None: as many as measure fastest
    # hold the model's head beside its last layer; None: where there is room
    head: bool | None = None
    link_ms: float = 0.0  # emulated one-way delay of what this peer sends
    metrics: ListenAddress | None = None  # where to serve metrics; None: nowhere
    scripted: bool = False  # the model has no real layers: `peers.compute.scripted`


@dataclass(frozen=True)
class Prepared:
    """A model that this computer can serve layers of.

    Attributes:
        capacity: how many layers fit; 0 if the operator has chosen the layers.
        cuts: where the model may be cut.
        load: what loads a span of it.
    """

    checkpoint: Checkpoint
    dtype: torch.dtype
    room: MemoryBudget
    capacity: int
    cuts: Cuts
    load: LoadSpan = Span.load


async def prepare(options: PeerOptions) -> Prepared:
    """Open and rehearse the model, and check that what is asked for fits.

    Raises:
        DoesNotFit, SpanError, UnsupportedModel: if it cannot be served like this.
        ConfigError: if its layers are real, and scripted ones are asked for, or the head beside
            layers that do not end the model.
    """
    return await asyncio.get_running_loop().run_in_executor(None, _prepare, options)


def _prepare(options: PeerOptions) -> Prepared:
    """In a thread: the fingerprint of a local folder reads all its weights."""
    if options.quantization is not None:
        options.quantization.check(options.device)
    load = scripted(options.model) if options.scripted else Span.load
    checkpoint = Checkpoint.open(options.model, options.quantization)
    cuts = rehearsed(checkpoint).cuts
    dtype = options.dtype or choose_dtype(checkpoint, options.device)
    memory = DeviceMemory(options.device, options.memory)
    room = MemoryBudget.measure(checkpoint, dtype, memory, options.cache_tokens, options.head)
    capacity = 0
    if options.layers is None:
        capacity = _capacity(options, room, cuts)
    else:
        _check_layers(options.layers, checkpoint, cuts)
        if options.head and options.layers[1] != checkpoint.num_layers:
            raise ConfigError(
                "--head",
                f"layers {options.layers[0]}:{options.layers[1]} do not end {checkpoint.name},"
                f" which has {checkpoint.num_layers}; only a peer of the last layer can hold its"
                " head",
            )
        room.check(options.layers)
    _ = checkpoint.fingerprint
    return Prepared(checkpoint, dtype, room, capacity, cuts, load)


def _capacity(options: PeerOptions, room: MemoryBudget, cuts: Cuts) -> int:
    """Return how many layers to serve at most.

    Raises:
        DoesNotFit, ConfigError: if that is less than any span that cannot be cut any more.
    """
    first, last = cuts.smallest
    if options.max_layers is not None and options.max_layers < last - first:
        raise ConfigError(
            "--max-layers",
            f"{options.model} can be cut {cuts}; give at least {last - first}",
        )
    fitting = room.capacity()
    if fitting < last - first:
        room.check((first, last))
    return min(max(fitting, last - first), options.max_layers or room.model_layers)


def _check_layers(layers: tuple[int, int], checkpoint: Checkpoint, cuts: Cuts) -> None:
    first, last = layers
    if not 0 <= first < last <= checkpoint.num_layers:
        raise SpanError(
            first, last, f"{checkpoint.name} has the layers [0, {checkpoint.num_layers})"
        )
    if not cuts.allow(first, last):
        raise SpanError(first, last, f"{checkpoint.name} can be cut {cuts}")
