"""Read docs/protocol-vectors.json as another implementation would, by docs/protocol.md alone."""

import hashlib
import hmac
import json
import struct
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509 import load_der_x509_certificate

from docs.vectors import from_json, to_json
from docs.written import VECTORS
from swarm.identity import verify
from swarm.network.dht.records import decode as decode_record
from swarm.network.dht.records import encode as encode_record
from swarm.wire import codec, handshake
from swarm.wire.codec import WireError
from swarm.wire.tensors import WireTensor

FILE = from_json(json.loads(VECTORS.read_text("utf-8")))
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def named(part: str, *names: str) -> Any:
    """Return the examples of one part, each with an id that names it."""
    return pytest.mark.parametrize(
        "example",
        [
            pytest.param(each, id="-".join(str(each[name]) for name in names) or None)
            for each in FILE[part]
        ],
    )


def parts(*values: bytes | str) -> bytes:
    raw = [value.encode() if isinstance(value, str) else value for value in values]
    return b"".join(struct.pack(">I", len(value)) + value for value in raw)


def public_key(peer_id: str) -> Ed25519PublicKey:
    number = 0
    for character in peer_id:
        number = 58 * number + ALPHABET.index(character)
    multihash = b"\0" + number.to_bytes(37, "big")
    assert multihash[:6] == bytes.fromhex("002408011220")
    return Ed25519PublicKey.from_public_bytes(multihash[6:])


@named("identities", "peer_id")
def test_identities(example: Any) -> None:
    private = Ed25519PrivateKey.from_private_bytes(example["private_key"])
    public = private.public_key().public_bytes_raw()
    assert public == example["public_key"] == public_key(example["peer_id"]).public_bytes_raw()
    assert private.sign(example["signed"]) == example["signature"]
    assert hashlib.sha256(example["certificate"]).hexdigest() == example["certificate_fingerprint"]
    shown = load_der_x509_certificate(example["certificate"]).public_key()
    assert isinstance(shown, Ed25519PublicKey)
    assert shown.public_bytes_raw() == public
    assert verify(example["peer_id"], example["signed"], example["signature"])


def test_the_fingerprint_of_weights() -> None:
    weights = FILE["weights"]
    written = json.dumps(
        [weights["config"], weights["files"]], sort_keys=True, separators=(",", ":")
    )
    assert hashlib.sha256(written.encode()).hexdigest()[:32] == weights["fingerprint"]


@named("messages", "kind")
def test_messages_in_both_directions(example: Any) -> None:
    decoded = codec.decode(example["bytes"])
    assert from_json(to_json(decoded)) == example["fields"]
    assert codec.encode(type(decoded).model_validate(example["fields"])) == example["bytes"]
    version, kind, fields = msgpack.unpackb(example["bytes"])
    assert (version, kind) == (FILE["protocol"], example["kind"])
    assert completed(fields, example["fields"]) == example["fields"]


def completed(fields: dict[str, Any], with_defaults: dict[str, Any]) -> dict[str, Any]:
    """Return fields as they were sent, with those that were left out at their defaults."""
    nested = {
        name: completed(each, with_defaults[name]) if isinstance(each, dict) else each
        for name, each in fields.items()
    }
    return with_defaults | nested


def test_every_kind_of_message_has_an_example() -> None:
    assert {example["kind"] for example in FILE["messages"]} == set(codec._KINDS)
    assert {said["kind"] for example in FILE["hellos"] for said in example["messages"]} == set(
        handshake._KINDS
    )


@named("refused", "what")
def test_what_is_no_message_is_refused(example: Any) -> None:
    with pytest.raises(WireError):
        codec.decode(example["bytes"])


@named("tensors")
def test_tensors(example: Any) -> None:
    tensor = WireTensor.model_validate(example["tensor"])
    assert tensor.unpack().float().tolist() == example["rows"]
    if tensor.dtype == "bfloat16":
        halves = struct.unpack(f"<{len(tensor.data) // 2}H", tensor.data)
        numbers = [struct.unpack(">f", struct.pack(">I", half << 16))[0] for half in halves]
    else:
        form = "f" if tensor.dtype == "float32" else "e"
        numbers = list(
            struct.unpack(f"<{len(tensor.data) // struct.calcsize(form)}{form}", tensor.data)
        )
    assert numbers == [number for row in example["rows"] for number in row]


class Tree:
    """The rule of token trees as the page has it, with sets instead of masks."""

    def __init__(self) -> None:
        self.epoch = self.ahead = self.root = self.last = 0
        self.parent: dict[int, int] = {}  # of every token that is held, by serials
        self.rows: list[int] = []  # serials
        self.gap_allowed = True

    def path(self, serial: int) -> list[int]:
        """Return the serials that lead to a token, including its own."""
        return [] if serial == 0 else [*self.path(self.parent[serial]), serial]

    def forget(self, epoch: int, root: int) -> bool:
        """Do step 3; return False for a root that is not held."""
        newer, behind = epoch > self.epoch, self.rows[len(self.path(self.root)) :]
        if newer and root == 0:
            kept: list[int] = []
        elif root == self.root:
            kept = self.path(root) if newer else self.rows
        elif root in behind:
            follows = [] if newer else [each for each in behind if root in self.path(each)[:-1]]
            kept = [*self.path(root), *follows]
        else:
            return False
        self.kept = [self.rows.index(serial) for serial in kept]
        self.rows = kept
        self.epoch = epoch
        self.root = root
        return True

    def cut(self, epoch: int, root: int) -> dict[str, Any]:
        assert self.forget(epoch, root)
        self.ahead, self.gap_allowed = max(self.ahead, epoch), True
        return self.outcome([])

    def admit(
        self, epoch: int, root: int, first: int, count: int, parents: list[int] | None, replay: bool
    ) -> dict[str, Any]:
        if epoch < max(self.epoch, self.ahead):
            return {"stale": True}
        jumps = epoch > self.epoch or (self.gap_allowed and (self.last > 0 or replay))
        if first <= self.last or (not jumps and first != self.last + 1):
            return {"fault": "out_of_order"}
        if not self.forget(epoch, root):
            return {"fault": "out_of_order"}
        new = list(range(first, first + count))
        for serial, distance in zip(new, parents or [1] * count, strict=True):
            parent = serial - distance
            if parent != self.root and parent not in self.rows[len(self.path(self.root)) :]:
                return {"fault": "out_of_order"}
            self.parent[serial] = parent
            self.rows.append(serial)
        self.last = new[-1]
        self.gap_allowed = replay
        return self.outcome(new)

    def outcome(self, new: list[int]) -> dict[str, Any]:
        paths = [self.path(serial) for serial in new]
        return {
            "rows_kept": self.kept,
            "positions": [len(path) - 1 for path in paths],
            "sees": [[self.rows.index(serial) for serial in path] for path in paths],
            "trunk": len(self.path(self.root)),
        }


@named("streams", "what")
def test_streams(example: Any) -> None:
    tree = Tree()
    for step in example["steps"]:
        if "cancel" in step:
            tree.ahead = max(tree.ahead, step["cancel"])
            continue
        said = tree.cut(**step["cut"]) if "cut" in step else tree.admit(**step["frame"])
        assert {**step, **said} == step
        assert len({*step} - {"frame", "cut"}) == len(said)


@named("hellos", "what")
def test_hellos(example: Any) -> None:
    said = {each["kind"]: each["fields"] for each in example["messages"]}
    for each in example["messages"]:
        decoded = handshake._KINDS[each["kind"]].model_validate(each["fields"])
        assert handshake.encode(decoded) == each["bytes"]
        assert msgpack.unpackb(each["bytes"])[1] == each["kind"]
    if "refusal" in said:
        return
    greeting, welcome = said["hello"], said["welcome"]
    for side, kind, peer_id in (
        ("serving", "welcome", example["serving"]),
        ("dialling", "introduction", example["dialling"]),
    ):
        transcript = parts(
            f"swarm hello 1, {side} side",
            greeting["nonce"],
            welcome["nonce"],
            b"".join(struct.pack(">H", version) for version in greeting["versions"]),
            struct.pack(">H", welcome["version"]),
            greeting["network"],
            greeting["peer_id"],
            welcome["peer_id"],
            example["binding"],
        )
        assert transcript == example[f"{side}_transcript"]
        public_key(peer_id).verify(said[kind]["signature"], transcript)
        key = example["network_key"]
        assert said[kind]["proof"] == (
            None if key is None else hmac.digest(key, transcript, "sha256")
        )
    assert welcome["version"] == max({*greeting["versions"]} & {FILE["protocol"]})


@named("records", "key_text")
def test_records(example: Any) -> None:
    record = example["record"]
    packed, key, subkey = (example[name] for name in ("encoded", "key", "subkey"))
    assert encode_record(decode_record(packed)) == packed
    assert msgpack.unpackb(packed) == record
    by, tree = (
        (
            "peer_id",
            f"{record['fingerprint']}/{4 * record['first_layer'] // record['model_layers']}",
        )
        if record["kind"] == "peer"
        else ("fingerprint", "models")
    )
    digest = hashlib.sha256(f"swarm way {record[by]}".encode()).digest()[:8]
    way = f"{int.from_bytes(digest, 'big'):064b}"[:12]
    assert example["way"] == way
    ranked = hashlib.sha256(f"swarm rank {record['peer_id']}".encode()).digest()[:8]
    assert example["rank"] == int.from_bytes(ranked, "big")
    beginning, _, path = example["key_text"].rpartition("/")
    assert beginning == f"swarm/{record['network']}/{tree}"
    assert way.startswith(path)
    assert key == hashlib.sha1(msgpack.packb(example["key_text"])).digest()
    assert subkey == msgpack.packb(record["peer_id"])
    value = msgpack.packb(packed)
    lengths = struct.pack(">III", len(key), len(subkey), len(value))
    expiration = struct.pack(">d", example["expiration"])
    signed = b"swarm directory record 1\0" + lengths + expiration + key + subkey + value
    assert signed == example["signed"]
    assert example["stored"][:-64] == value
    public_key(record["peer_id"]).verify(example["stored"][-64:], signed)


@named("seals")
def test_seals(example: Any) -> None:
    key = hmac.digest(example["network_key"], b"swarm directory calls 1", "sha256")
    call = example["call"]["name"], example["call"]["caller"], example["call"]["callee"]
    for kind, time in (("request", example["time"]), ("answer", 0.0)):
        moment, content = struct.pack(">d", time), example[f"{kind}_content"]
        mac = hmac.digest(key, parts(kind, *call, example["nonce"], moment, content), "sha256")
        head = example["nonce"] + moment if kind == "request" else b""
        assert example[kind] == head + mac + content
