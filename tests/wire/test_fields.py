"""What several messages and records have in common is of one type, matched as a whole."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from pydantic import BaseModel, TypeAdapter, ValidationError

from peers import command_options
from swarm.config import Network
from swarm.network.dht.records import ModelRecord, PeerRecord
from swarm.network.nat.dialback import DialRequest, DialResponse
from swarm.wire import codec, fields, handshake
from swarm.wire.messages import Hop
from swarm.wire.tensors import WireTensor, dtype_name

MODELS: list[type[BaseModel]] = [
    *codec._KINDS.values(),
    *handshake._KINDS.values(),
    *(Hop, WireTensor, PeerRecord, ModelRecord, DialRequest, DialResponse),
]
SHARED = {
    "peer_id": fields.PeerId,
    "fingerprint": fields.Fingerprint,
    "certificate": fields.Certificate,
    "address": fields.Address,
    "network": fields.NetworkName,
    "dtype": fields.Dtype,
    "text": fields.ReasonText,
}
VALID = {
    "PeerId": "12D3KooWExample",
    "Fingerprint": "0f" * 16,
    "Certificate": "0f" * 32,
    "NetworkName": "swarm-main",
}


def test_every_model_from_outside_is_strict() -> None:
    for model in MODELS:
        assert issubclass(model, fields.StrictModel)
        assert model.model_config["strict"] is True
        assert model.model_config["frozen"] is True
        assert model.model_config["extra"] == "forbid"


def test_a_field_of_the_same_name_has_the_same_type_everywhere() -> None:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for model in MODELS:
        for name, schema in model.model_json_schema().get("properties", {}).items():
            if name in SHARED:
                found[name].append({k: v for k, v in schema.items() if k != "title"})
    assert set(found) == set(SHARED)
    for name, schemas in found.items():
        expected = TypeAdapter(SHARED[name]).json_schema()
        assert all(schema == expected for schema in schemas), name


@pytest.mark.parametrize("name", VALID)
def test_a_text_is_matched_as_a_whole(name: str) -> None:
    kind: TypeAdapter[str] = TypeAdapter(getattr(fields, name))
    assert kind.validate_python(VALID[name]) == VALID[name]
    for wrong in ("\n", " ", "\0", "é"):
        for text in (VALID[name] + wrong, wrong + VALID[name]):
            with pytest.raises(ValidationError):
                kind.validate_python(text)


def test_a_configured_network_name_can_be_said_on_the_wire() -> None:
    said: TypeAdapter[str] = TypeAdapter(fields.NetworkName)
    for name in ("a", "swarm-main", "x" * 32):
        assert said.validate_python(Network(name).name) == name


def test_every_dtype_travels_and_can_be_chosen() -> None:
    assert command_options.DTYPES == fields.DTYPES
    assert tuple(dtype_name(getattr(torch, name)) for name in fields.DTYPES) == fields.DTYPES
