"""What a peer says of itself: to the directory as a record, to its operator in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from pydantic import ValidationError

from peers.compute.cache_budget import CacheBudget
from peers.compute.memory import in_words
from peers.events import PeerEvent
from swarm import __version__
from swarm.errors import ConfigError
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.dht.records import HEAD_TAG, PeerRecord, PeerState
from swarm.routing import placement
from swarm.wire.codec import PROTOCOL_VERSION
from swarm.wire.tensors import dtype_name


@dataclass(frozen=True)
class PeerFacts:
    """What does not change while a peer lives.

    Attributes:
        network: its name.
        dtype: that the layers compute in.
    """

    identity: Identity
    network: str
    checkpoint: Checkpoint
    dtype: torch.dtype
    device: torch.device

    def labels(self) -> dict[str, str]:
        """As metrics carry them."""
        return {
            "model": self.checkpoint.name,
            "dtype": dtype_name(self.dtype),
            "device": self.device.type,
            "network": self.network,
        }


@dataclass
class Offer:
    """What changes: the layers that a peer serves or is about to, and what it can do with them.

    Attributes:
        tokens_per_second: of one session, as measured when the layers were loaded.
        budget: the cache of all sessions.
        head_bytes: of the final norm and LM head, if they are held as well; 0 without them.
    """

    layers: placement.Span
    state: PeerState = "joining"
    tokens_per_second: float = 0.0
    budget: CacheBudget = field(default_factory=lambda: CacheBudget(0))
    head_bytes: int = 0

    def record(
        self,
        facts: PeerFacts,
        addresses: tuple[str, ...],
        neighbours: tuple[tuple[str, int], ...] = (),
        queue_ms: float = 0.0,
    ) -> PeerRecord:
        """Return what the directory is to have.

        Raises:
            ConfigError: if it would be no valid record, which only the operator's options can
                cause.
        """
        try:
            return PeerRecord(
                peer_id=facts.identity.peer_id,
                network=facts.network,
                model=facts.checkpoint.name,
                fingerprint=facts.checkpoint.fingerprint,
                model_layers=facts.checkpoint.num_layers,
                first_layer=self.layers[0],
                last_layer=self.layers[1],
                dtype=dtype_name(facts.dtype),
                addresses=addresses,
                certificate=facts.identity.certificate_fingerprint,
                tokens_per_second=self.tokens_per_second,
                queue_ms=queue_ms,
                neighbours=neighbours,
                free_cache_tokens=self.budget.free_tokens,
                state=self.state,
                software=__version__ + HEAD_TAG * bool(self.head_bytes),
                protocol=PROTOCOL_VERSION,
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"])) or "record"
            raise ConfigError(
                name, f"{first['input']!r} cannot be announced ({first['msg']})"
            ) from None

    def describe(self, facts: PeerFacts, span: Span, addresses: Sequence[str]) -> PeerEvent:
        """Return what the operator reads when ``span`` is served."""
        checkpoint, peer_id = facts.checkpoint, facts.identity.peer_id
        kept = f" in {checkpoint.bits}" if checkpoint.bits else ""
        head = f", with the head of {in_words(self.head_bytes)}" if self.head_bytes else ""
        sentence = (
            f"serving layers {span.first}:{span.last} of {checkpoint.num_layers} of"
            f" {checkpoint.name} ({in_words(span.nbytes)}{kept}, {facts.device},"
            f" {dtype_name(facts.dtype)}, {self.tokens_per_second:.0f} tokens/s, cache for"
            f" {self.budget.total_tokens} tokens{head})"
            f" at {' and '.join(addresses)} as {peer_id}"
        )
        told = {
            "peer_id": peer_id,
            "model": checkpoint.name,
            "fingerprint": checkpoint.fingerprint,
            "model_layers": checkpoint.num_layers,
            "layers": (span.first, span.last),
            "head": bool(self.head_bytes),
            "head_bytes": self.head_bytes,
            "weights_bytes": span.nbytes,
            "device": str(facts.device),
            "dtype": dtype_name(facts.dtype),
            "tokens_per_second": self.tokens_per_second,
            "cache_tokens": self.budget.total_tokens,
            "addresses": tuple(addresses),
        }
        return PeerEvent("serving", sentence, told)
