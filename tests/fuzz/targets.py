"""The targets of hostile bytes: every decoder that strangers reach, and what must hold for it."""

import asyncio
import re
import struct
from dataclasses import replace
from random import Random

import msgpack
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord
from hivemind.utils import MSGPackSerializer

from fuzz.schema import IDENTITIES, valid
from swarm.errors import InvalidRecord
from swarm.identity import Identity
from swarm.network.dht import keys, records, validator
from swarm.network.links import address, libp2p
from swarm.network.links.libp2p import StreamLink
from swarm.network.links.link import LinkClosed
from swarm.network.nat import dialback
from swarm.wire import codec, handshake, messages, tensors
from swarm.wire.codec import MAX_MESSAGE_BYTES, WireError
from swarm.wire.messages import WireMessage

NOW = 1000.0
SIGNED = 40  # records that are genuine
MB = 1 << 20


def _kind(reason: str) -> str:
    """Return the reason of a refusal without the parts that differ from input to input."""
    where, _, why = reason.rpartition(": ")
    return re.sub(r"\d+|'.*", "#", why if why.startswith(("Extra", "Keys")) else f"{where} {why}")[
        :60
    ]


class Codec:
    """Either a message that is encoded back to the same bytes, or a `WireError`."""

    name = "codec"
    modules = (codec, messages, tensors)
    longest = 8 * MB

    def seed(self, random: Random) -> bytes:
        kind = random.choice(list(codec._KINDS))
        fields = valid(codec._KINDS[kind], random)
        data: bytes = msgpack.packb([codec.PROTOCOL_VERSION, kind, fields])
        return data

    def run(self, data: bytes) -> str:
        try:
            message = codec.decode(data)
        except WireError as error:
            refusal = error
        else:
            return self._comes_back(message)
        assert str(refusal).isprintable(), "a refusal could steer a terminal"
        assert len(str(refusal)) < 200, "a refusal is as long as the sender likes"
        return _kind(refusal.reason)

    def memory(self, data: bytes) -> int:
        return MB + 4 * len(data)

    def _comes_back(self, message: WireMessage) -> str:
        again = codec.encode(message)
        assert codec.decode(again) == message, "it does not come back"
        assert len(again) <= MAX_MESSAGE_BYTES, "it may be heard, but not said"
        hidden = getattr(message, "hidden", None)
        if hidden is not None:
            assert tensors.WireTensor.pack(hidden.unpack()) == hidden, (
                "its tensor does not come back"
            )
        return f"valid {type(message).__name__}"


class Records:
    """Either a record that is encoded back to the same bytes, or `InvalidRecord`."""

    name = "records"
    modules = (records, address, keys)
    longest = 1 << 16

    def seed(self, random: Random) -> bytes:
        kind = random.choice((records.PeerRecord, records.ModelRecord))
        data: bytes = msgpack.packb(valid(kind, random))
        return data

    def run(self, data: bytes) -> str:
        try:
            record = records.decode(data)
        except InvalidRecord as error:
            return _kind(str(error))
        assert records.keys(record)
        try:
            again = records.encode(record)
        except InvalidRecord:  # with its defaults it is longer
            return "valid, not kept"
        assert records.decode(again) == record, "it does not come back"
        return f"valid {record.kind}"

    def memory(self, data: bytes) -> int:
        return 8 * MB  # a record has one kilobyte


class Validator:
    """Only what the owner signed is accepted, and a refused record never affects others."""

    name = "validator"
    modules = (validator, records)
    longest = 1 << 12

    def __init__(self) -> None:
        random = Random(0)
        self._friend = self._record(IDENTITIES[1], random)
        self._records = [self._record(IDENTITIES[0], random) for _ in range(SIGNED)]

    def seed(self, random: Random) -> bytes:
        record = random.choice(self._records)
        data: bytes = msgpack.packb(
            [record.key, record.subkey, record.value, record.expiration_time]
        )
        return data

    def run(self, data: bytes) -> str:
        try:
            key, subkey, value, expiration = msgpack.unpackb(data, strict_map_key=False)
            hash(key), hash(subkey)
        except Exception:  # hivemind's own messages, which are typed, would not carry it
            return "no record"
        checker = validator.RecordValidator("fuzz", clock=lambda: NOW)
        record = DHTRecord(key, subkey, value, expiration)
        taken = checker.validate(record)
        assert taken is False or _is_signed(record), "it was forged"
        self._sift(key, subkey, value, expiration)
        return "valid" if taken else "refused"

    def memory(self, data: bytes) -> int:
        return 8 * MB + 8 * len(data)

    def _sift(self, key: object, subkey: object, value: object, expiration: object) -> None:
        if not isinstance(expiration, float | int):
            return  # hivemind's own storage sorts by it
        friend = self._friend
        held = DictionaryDHTValue()
        named = MSGPackSerializer.loads(friend.subkey)
        with held.freeze():
            held.store(named, friend.value, friend.expiration_time)
            try:
                held.store(subkey, value, expiration)
            except TypeError:  # hivemind's own unpacking fails, of what one node answers
                return
        checker = validator.RecordValidator("fuzz", clock=lambda: NOW)
        assert checker.sift(friend.key, held)
        with held.freeze():
            assert named in dict(held.items()) or subkey == named, "a bad record hid a good one"

    def _record(self, identity: Identity, random: Random) -> DHTRecord:
        fields = valid(records.PeerRecord, random) | {
            "network": "fuzz",
            "peer_id": identity.peer_id,
        }
        record = records.PeerRecord.model_validate(fields)
        try:
            packed = MSGPackSerializer.dumps(records.encode(record))
        except InvalidRecord:
            return self._record(identity, random)
        key = DHTID.generate(record.key()).to_bytes()
        bare = DHTRecord(
            key, MSGPackSerializer.dumps(identity.peer_id), packed, NOW + random.randint(1, 60)
        )
        value = validator.RecordValidator("fuzz", identity).sign_value(bare)
        return DHTRecord(key, bare.subkey, value, bare.expiration_time)


def _is_signed(record: DHTRecord) -> bool:
    """Tell whether one of our identities signed exactly this: signatures are deterministic."""
    bare = replace(record, value=record.value[: -validator.SIGNATURE_BYTES])
    return any(
        validator.RecordValidator("fuzz", each).sign_value(bare) == record.value
        for each in IDENTITIES
    )


class Framing:
    """The messages of a libp2p stream follow its lengths, up to the first invalid length."""

    name = "framing"
    modules = (libp2p,)
    longest = 1 << 16

    def __init__(self) -> None:
        self._codec = Codec()
        self._loop = asyncio.new_event_loop()

    def seed(self, random: Random) -> bytes:
        said = [
            self._codec.seed(random) if random.random() < 0.8 else b""
            for _ in range(random.randint(0, 4))
        ]
        return b"".join(struct.pack(">I", len(each)) + each for each in said)

    def run(self, data: bytes) -> str:
        heard, end = self._loop.run_until_complete(self._read(data))
        messages, expected = _told_apart(data)
        assert (heard, end) == (messages, expected), f"{len(heard)} messages, then {end}"
        return f"{'valid ' if heard else ''}{min(len(heard), 5)}, {end}"

    def memory(self, data: bytes) -> int:
        return MB + 8 * len(data)

    async def _read(self, data: bytes) -> tuple[list[WireMessage], str]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        heard: list[WireMessage] = []
        link = StreamLink(
            reader,
            asyncio.StreamWriter(_Nowhere(), asyncio.Protocol(), reader, self._loop),
            "a stranger",
        )
        try:
            while True:
                heard.append(await link.receive())
        except WireError:
            return heard, "WireError"
        except LinkClosed:
            return heard, "LinkClosed"
        finally:
            link._heart.cancel()
            await asyncio.wait({link._heart})


class _Nowhere(asyncio.WriteTransport):
    """Accepts bytes, and drops them."""

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def _told_apart(data: bytes) -> tuple[list[WireMessage], str]:
    """Split a stream into messages in the plain way."""
    heard: list[WireMessage] = []
    while len(data) >= 4:
        length = int.from_bytes(data[:4], "big")
        if length > MAX_MESSAGE_BYTES:
            return heard, "WireError"
        if len(data) < 4 + length:
            break
        if length:
            try:
                heard.append(codec.decode(data[4 : 4 + length]))
            except WireError:
                return heard, "WireError"
        data = data[4 + length :]
    return heard, "LinkClosed"


class Dialback:
    """Either a question or an answer, or a ValueError."""

    name = "dialback"
    modules = (dialback, address)
    longest = 1 << 16

    def seed(self, random: Random) -> bytes:
        data: bytes = msgpack.packb(
            valid(random.choice((dialback.DialRequest, dialback.DialResponse)), random)
        )
        return data

    def run(self, data: bytes) -> str:
        outcome = ""
        for kind in (dialback.DialRequest, dialback.DialResponse):
            try:
                said = dialback._decoded(kind, data)
            except ValueError as error:
                outcome = outcome or _kind(str(error))
            else:
                assert dialback._decoded(kind, msgpack.packb(said.model_dump())) == said
                outcome = f"valid {kind.__name__}"
        return outcome

    def memory(self, data: bytes) -> int:
        return 16 * MB  # two decoders, one kilobyte


class Greeting:
    """Each message of the handshake, wherever any of them is due.

    Either that message, encoded back to the same bytes, or a `HelloError` in one printable
    sentence.
    """

    name = "hello"
    modules = (handshake, codec)
    longest = 1 << 13

    def seed(self, random: Random) -> bytes:
        name = random.choice(list(handshake._KINDS))
        data: bytes = msgpack.packb(
            [codec.PROTOCOL_VERSION, name, valid(handshake._KINDS[name], random)]
        )
        return data

    def run(self, data: bytes) -> str:
        outcome = ""
        for kind in (handshake.Hello, handshake.Welcome, handshake.Introduction):
            try:
                said = handshake.decode(data, kind)
            except handshake.HelloError as error:
                refusal = error
            else:
                assert handshake.decode(handshake.encode(said), kind) == said, (
                    "it does not come back"
                )
                return f"valid {kind.__name__}"
            assert str(refusal).isprintable(), "a refusal could steer a terminal"
            assert len(str(refusal)) < 400, "a refusal is as long as the sender likes"
            outcome = outcome or _kind(refusal.why)
        return outcome

    def memory(self, data: bytes) -> int:
        return 8 * MB


TARGETS = {kind.name: kind for kind in (Codec, Greeting, Records, Validator, Framing, Dialback)}
