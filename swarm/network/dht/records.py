"""The two records that a peer keeps in the DHT, their bytes, and the keys they live under.

A PeerRecord says which layers the peer serves and how to reach it. It is stored once, under one of
the keys of its model, block of layers and peer id. A ModelRecord is a peer's entry in the list of
models, so that a stranger can ask what is served; a few peers of each model keep one. In both
places the subkey is the peer's id.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgpack
from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from swarm.errors import IdentityError, InvalidRecord
from swarm.identity import public_key_of
from swarm.network.dht.keys import MAX_DEPTH, Shard, block_of, models_key, span_key, way_of
from swarm.network.links.address import check_address
from swarm.wire.fields import (
    MAX_MODEL_LAYERS,
    Address,
    Certificate,
    Dtype,
    Fingerprint,
    NetworkName,
    PeerId,
    StrictModel,
)

RECORD_LIFETIME_S = 60.0  # after this a peer that died without withdrawing is forgotten
# by which a writer's clock may be ahead; hivemind lets nodes enter that are up to 3 s off
CLOCK_SKEW_S = 5.0
REFRESH_INTERVAL_S = RECORD_LIFETIME_S / 3  # so a record survives two failed refreshes
MAX_RECORD_BYTES = 1024  # hivemind answers with a whole key in one message of at most 4 MB
MAX_NEIGHBOURS = 16

# Behind the version of a peer's software, if it holds the model's head. A field of its own would
# make the record invalid to older members: they take no field that they do not know.
HEAD_TAG = "+head"

PeerState = Literal["joining", "online", "draining", "offline"]
# printed in terminals: no controls
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}\z")]
NeighbourKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{10}\z")]
Neighbour = Annotated[
    tuple[NeighbourKey, Annotated[int, Field(ge=0, le=65_535)]], Field(strict=False)
]


class _Record(StrictModel):
    model_config = ConfigDict(allow_inf_nan=False)

    peer_id: PeerId
    network: NetworkName
    model: ModelName
    fingerprint: Fingerprint  # of the model's config and weights
    model_layers: Annotated[int, Field(ge=1, le=MAX_MODEL_LAYERS)]
    state: PeerState

    @field_validator("peer_id")
    @classmethod
    def _has_a_key(cls, peer_id: str) -> str:
        try:
            public_key_of(peer_id)
        except IdentityError as error:
            raise ValueError(str(error)) from error
        return peer_id


class PeerRecord(_Record):
    """What one peer serves, layers [first_layer, last_layer) of a model, and how to reach it."""

    kind: Literal["peer"] = "peer"
    first_layer: Annotated[int, Field(ge=0)]
    last_layer: int
    dtype: Dtype
    # strict=False: msgpack has lists only. The strings inside stay strict.
    # best first
    addresses: Annotated[tuple[Address, ...], Field(strict=False, min_length=1, max_length=8)]
    certificate: Certificate
    tokens_per_second: Annotated[float, Field(ge=0, le=1e9)]
    free_cache_tokens: Annotated[int, Field(ge=0, le=2**48)]
    # how long frames lately waited for other sessions' frames
    queue_ms: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    # One-way times to peers that may come before or after in a chain: `neighbour_key`, tenths of
    # ms.
    neighbours: Annotated[
        tuple[Neighbour, ...], Field(strict=False, max_length=MAX_NEIGHBOURS)
    ] = ()
    software: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+_-]{1,32}\z")]
    protocol: Annotated[int, Field(ge=1, le=65535)]

    @field_validator("addresses")
    @classmethod
    def _can_be_dialled(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            check_address(address)
        return addresses

    @model_validator(mode="after")
    def _span_lies_in_the_model(self) -> PeerRecord:
        if not self.first_layer < self.last_layer <= self.model_layers:
            raise ValueError(
                f"no span [{self.first_layer}, {self.last_layer}) in {self.model_layers} layers"
            )
        return self

    @property
    def head(self) -> bool:
        """Whether the peer ends the model and holds final norm and LM head as well."""
        return self.last_layer == self.model_layers and self.software.endswith(HEAD_TAG)

    @property
    def block(self) -> int:
        """The block of layers that the span begins in."""
        return block_of(self.first_layer, self.model_layers)

    def key(self, depth: int = 0) -> str:
        """Return the DHT key this record may lie under at this depth below the root."""
        return span_key(
            self.network, self.fingerprint, Shard(self.block, way_of(self.peer_id)[:depth])
        )

    def model_record(self) -> ModelRecord:
        """Return the entry in the list of models that goes with this record."""
        shared = {name: getattr(self, name) for name in _Record.model_fields}
        return ModelRecord(**shared)


class ModelRecord(_Record):
    """One peer's statement that it serves some part of a model."""

    kind: Literal["model"] = "model"

    def key(self, depth: int = 0) -> str:
        """Return the DHT key this record may lie under at this depth below the root."""
        return models_key(self.network, way_of(self.fingerprint)[:depth])


Record = PeerRecord | ModelRecord
_ANY_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def neighbour_key(peer_id: str) -> str:
    """Return the short form of a peer id among the neighbours of a record.

    If two peers share it, only their times are mixed up.
    """
    return peer_id[-10:]


def latest_expiration_s(now_s: float) -> float:
    """Return the latest time at which a record that is written now may expire."""
    return now_s + RECORD_LIFETIME_S + CLOCK_SKEW_S


def keys(record: Record) -> tuple[str, ...]:
    """Return every DHT key that this record may lie under, from the root down."""
    return tuple(record.key(depth) for depth in range(MAX_DEPTH + 1))


def encode(record: Record) -> bytes:
    """Return the record as msgpack. Raises InvalidRecord for more than MAX_RECORD_BYTES."""
    data: bytes = msgpack.packb(record.model_dump())
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidRecord(
            f"{len(data)} bytes, at most {MAX_RECORD_BYTES}; give fewer or shorter addresses"
        )
    return data


def decode(data: bytes) -> Record:
    """Return the record in bytes from outside.

    Raises InvalidRecord, and nothing else, on anything malformed.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidRecord(f"{len(data)} bytes, at most {MAX_RECORD_BYTES}")
    try:
        return _ANY_RECORD.validate_python(msgpack.unpackb(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRecord(
            f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}"
        ) from error
    # ValueError: broken, too deep, not UTF-8. OverflowError: a timestamp out of range. TypeError: a
    # list as a key.
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise InvalidRecord(f"not msgpack ({type(error).__name__})") from error
