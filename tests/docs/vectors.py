"""docs/protocol-vectors.json: examples of the protocol for other implementations.

Our own code makes them. Keys and nonces are fixed, and randomness is handed in, so that the file is
the same every time.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.utils import MSGPackSerializer
from pydantic import BaseModel

from docs.examples import STREAMS, Said, broken_messages, every_message
from swarm.config import Network
from swarm.demo import DRAFT, locate
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.source import VOLATILE_CONFIG_KEYS
from swarm.network.dht import keys, records, rpc_auth
from swarm.network.dht.validator import RecordValidator, _signed_bytes
from swarm.wire import codec, handshake, messages
from swarm.wire.codec import WireError
from swarm.wire.faults import FaultCode
from swarm.wire.handshake import (
    DIALLING,
    SERVING,
    DiallingSide,
    LocalMember,
    ServingSide,
    Transcript,
)
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import OutOfOrder, Placement, TokenTree

PRIVATE_KEYS = [bytes([number]) * 32 for number in (1, 2, 3)]
ALICE, BOB, RELAYED_BOB = (
    Identity(Ed25519PrivateKey.from_private_bytes(key)) for key in PRIVATE_KEYS
)
NETWORK_KEY = bytes(range(32))
NONCES = b"\xaa" * 32, b"\xbb" * 32
NOW = 1_800_000_000.0  # seconds since 1970

Json = Any


def vectors() -> dict[str, Json]:
    """Return the whole file."""
    return {
        "protocol": codec.PROTOCOL_VERSION,
        "identities": [_identity(key) for key in PRIVATE_KEYS],
        "weights": _weights(),
        "messages": [_message(each) for each in every_message(ALICE, BOB)],
        "refused": [_refused(what, data) for what, data in broken_messages()],
        "tensors": list(_tensors()),
        "streams": [_stream(what, frames) for what, frames in STREAMS.items()],
        "hellos": list(_hellos()),
        "records": list(_records()),
        "seals": [_sealed()],
    }


def to_json(value: Any) -> Json:
    """Turn bytes into ``{"hex": ...}``, and models into all of their fields."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, BaseModel):
        return to_json(value.model_dump(mode="python"))
    if isinstance(value, dict):
        return {key: to_json(each) for key, each in value.items()}
    if isinstance(value, FaultCode):
        return value.value
    return [to_json(each) for each in value] if isinstance(value, list | tuple) else value


def from_json(value: Json) -> Any:
    """Reverse `to_json`; models stay maps."""
    if isinstance(value, dict):
        if value.keys() == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {key: from_json(each) for key, each in value.items()}
    return [from_json(each) for each in value] if isinstance(value, list) else value


def text(value: Json) -> str:
    """Return the text of the file: one line per example."""
    parts = []
    for name, part in value.items():
        lines = (
            [json.dumps(each, ensure_ascii=False) for each in part]
            if isinstance(part, list)
            else None
        )
        written = (
            "[\n" + ",\n".join(lines) + "\n]" if lines else json.dumps(part, ensure_ascii=False)
        )
        parts.append(f'"{name}": {written}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _identity(key: bytes) -> Json:
    private = Ed25519PrivateKey.from_private_bytes(key)
    identity = Identity(private)
    return to_json(
        {
            "private_key": key,
            "public_key": private.public_key().public_bytes_raw(),
            "peer_id": identity.peer_id,
            "certificate": identity.certificate_der,
            "certificate_fingerprint": identity.certificate_fingerprint,
            "signed": b"a test",
            "signature": identity.sign(b"a test"),
        }
    )


def _weights() -> Json:
    folder = Path(locate(DRAFT))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config = {key: value for key, value in config.items() if key not in VOLATILE_CONFIG_KEYS}
    files = [
        [
            "model.safetensors",
            hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        ]
    ]
    return {
        "config": config,
        "files": files,
        "fingerprint": Checkpoint.open(str(folder)).fingerprint,
    }


# Messages and streams.


def _message(message: messages.WireMessage) -> Json:
    name = codec.kind_of(message)
    return to_json({"kind": name, "fields": message, "bytes": codec.encode(message)})


def _refused(what: str, data: bytes) -> Json:
    with pytest.raises(WireError):
        codec.decode(data)
    return to_json({"what": what, "bytes": data})


def _tensors() -> Iterator[Json]:
    rows = [[0.0, -0.0, 1.0, -1.5], [0.333251953125, 65_504.0, 6.103515625e-05, -0.0078125]]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tensor = WireTensor.pack(torch.tensor(rows).to(dtype))
        yield {"rows": torch.tensor(rows).to(dtype).float().tolist(), "tensor": to_json(tensor)}


def _stream(what: str, said: Sequence[Said]) -> Json:
    stream = TokenTree()
    return {"what": what, "steps": [_step(stream, each) for each in said]}


def _step(stream: TokenTree, said: Said) -> Json:
    if isinstance(said, int):
        stream.cancel(said)
        return {"cancel": said}
    if len(said) == 2:
        return {
            "cut": dict(zip(("epoch", "root"), said, strict=True)),
            **_placed(stream.cut(*said), stream),
        }
    epoch, root, first, tokens, *replay = said
    count, parents = (tokens, None) if isinstance(tokens, int) else (len(tokens), tokens)
    frame = {
        "epoch": epoch,
        "root": root,
        "first": first,
        "count": count,
        "parents": parents,
        "replay": bool(replay),
    }
    try:
        return {"frame": frame, **_placed(stream.admit(**frame), stream)}
    except OutOfOrder:
        return {"frame": frame, "fault": "out_of_order"}


def _placed(placement: Placement | None, stream: TokenTree) -> Json:
    if placement is None:
        return {"stale": True}
    start, kept = placement.start, len(placement.keep)
    rows = [*range(start - kept), *placement.keep]
    # What each token sees, as rows: those of the trunk, and of the others those whose bits are set.
    bits = placement.sees or [
        (2 << i) - 1 for i in range(start - placement.trunk, stream.length - placement.trunk)
    ]
    behind = [
        [placement.trunk + i for i in range(mask.bit_length()) if mask >> i & 1] for mask in bits
    ]
    sees = [[*range(placement.trunk), *rows_behind] for rows_behind in behind][
        : len(placement.positions)
    ]
    return {
        "rows_kept": rows,
        "positions": list(placement.positions),
        "sees": sees,
        "trunk": placement.trunk,
    }


# The hello.


def _hellos() -> Iterator[Json]:
    direct = b"tls-server-end-point:" + BOB.certificate_fingerprint.encode()
    relayed = f"libp2p:{ALICE.peer_id}/{RELAYED_BOB.peer_id}".encode()
    for what, key, binding in (
        ("an open network, a direct link", None, direct),
        ("a private network, a direct link", NETWORK_KEY, direct),
        ("an open network, a relayed link", None, relayed),
    ):
        network = Network("office", key=key)
        with _nonces(*NONCES):
            dialling = DiallingSide(
                LocalMember(ALICE, network), BOB.peer_id, binding, versions=(7, 8)
            )
            serving = ServingSide(LocalMember(BOB, network), binding, versions=(8,))
            welcome = serving.welcome(dialling.hello)
        introduction = dialling.welcomed(welcome)
        assert serving.introduced(introduction) == ALICE.peer_id
        transcript = Transcript(
            dialling.hello, welcome.nonce, welcome.version, welcome.peer_id, binding
        )
        said = (dialling.hello, welcome, introduction)
        yield to_json(
            {
                "what": what,
                "dialling": ALICE.peer_id,
                "serving": BOB.peer_id,
                "network_key": key,
                "binding": binding,
                "serving_transcript": transcript.said_by(SERVING),
                "dialling_transcript": transcript.said_by(DIALLING),
                "messages": [
                    {
                        "kind": type(each).__name__.lower(),
                        "fields": each,
                        "bytes": handshake.encode(each),
                    }
                    for each in said
                ],
            }
        )
    refusal = handshake.Refusal(text="this is the network 'office', not 'home'")
    said = [{"kind": "refusal", "fields": refusal, "bytes": handshake.encode(refusal)}]
    yield to_json({"what": "a hello that is refused", "messages": said})


@contextmanager
def _nonces(*nonces: bytes) -> Iterator[None]:
    with mock.patch.object(handshake, "new_nonce", side_effect=nonces):
        yield


# The directory.


def _records() -> Iterator[Json]:
    relay = f"/ip4/203.0.113.9/tcp/31337/p2p/{BOB.peer_id}"
    peer = records.PeerRecord(
        peer_id=ALICE.peer_id,
        network="office",
        model="demo-target",
        fingerprint="0123456789abcdef" * 2,
        model_layers=8,
        state="online",
        first_layer=2,
        last_layer=6,
        dtype="bfloat16",
        addresses=("203.0.113.5:31330", f"{relay}/p2p-circuit/p2p/{ALICE.peer_id}"),
        certificate=ALICE.certificate_fingerprint,
        tokens_per_second=120.5,
        free_cache_tokens=65_536,
        queue_ms=1.25,
        neighbours=((records.neighbour_key(BOB.peer_id), 125),),
        software="0.1.0",
        protocol=codec.PROTOCOL_VERSION,
    )
    for record in (peer, peer.model_record()):
        for depth in (0, 3):
            yield _record(record, depth)


def _record(record: records.Record, depth: int) -> Json:
    validator = RecordValidator("office", ALICE, clock=lambda: NOW)
    key, subkey = (
        DHTID.generate(record.key(depth)).to_bytes(),
        MSGPackSerializer.dumps(record.peer_id),
    )
    packed = MSGPackSerializer.dumps(records.encode(record))
    unsigned = DHTRecord(key, subkey, packed, NOW + records.RECORD_LIFETIME_S)
    stored = validator.sign_value(unsigned)
    assert validator.validate(DHTRecord(key, subkey, stored, unsigned.expiration_time))
    named = record.peer_id if isinstance(record, records.PeerRecord) else record.fingerprint
    return to_json(
        {
            "record": record,
            "way": keys.way_of(named),
            "rank": keys.rank_of(record.peer_id),
            "key_text": record.key(depth),
            "key": key,
            "subkey": subkey,
            "expiration": unsigned.expiration_time,
            "encoded": records.encode(record),
            "signed": _signed_bytes(key, subkey, packed, unsigned.expiration_time),
            "stored": stored,
        }
    )


def _sealed() -> Json:
    call, nonce = (
        rpc_auth.RpcCall("DHTProtocol.rpc_find", ALICE.peer_id, BOB.peer_id),
        bytes(range(16)),
    )
    ours = rpc_auth.RpcAuthenticator(NETWORK_KEY, clock=lambda: NOW)
    with mock.patch.object(rpc_auth.secrets, "token_bytes", return_value=nonce):
        request, _ = ours.request(call, b"what is asked")
    answer = rpc_auth.RpcAuthenticator(NETWORK_KEY, clock=lambda: NOW).answer(
        call, nonce, b"what is answered"
    )
    return to_json(
        {
            "network_key": NETWORK_KEY,
            "call": call._asdict(),
            "nonce": nonce,
            "time": NOW,
            "request_content": b"what is asked",
            "request": request,
            "answer_content": b"what is answered",
            "answer": answer,
        }
    )
