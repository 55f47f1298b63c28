"""Which records are valid: hivemind itself lets anyone overwrite a record by a later expiration.

A stored value is the msgpack bytes of a record, followed by a signature of 64 bytes. It is made by
the key inside the peer id that is both the record's subkey and its `peer_id`, and covers key,
subkey, value and expiration time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.utils import MSGPackSerializer
from hivemind.utils.timed_storage import get_dht_time

from swarm.errors import InvalidRecord
from swarm.identity import Identity, verify
from swarm.network.dht.records import MAX_RECORD_BYTES, decode, keys, latest_expiration_s
from swarm.network.dht.storage import MAX_RECORDS

SIGNATURE_BYTES = 64
_MAX_VALUE_BYTES = MAX_RECORD_BYTES + SIGNATURE_BYTES + 3  # 3: msgpack's header of a byte string
_MAX_REMEMBERED = 65_536
_PURPOSE = b"swarm directory record 1\0"  # the same key signs other things elsewhere


class RecordValidator(RecordValidatorBase):  # type: ignore[misc, unused-ignore]
    """Accepts only well-formed, short-lived records of one network that their owners have signed.

    With an identity it signs that peer's records; without one it only checks. Keeps the newest
    value seen of every record, so that a replayed older one is refused: besides turning back time
    for readers, a replay would make hivemind's storage drop the newer record at the older one's
    expiration.

    Args:
        admits: whose records are allowed, by peer id.
    """

    def __init__(
        self,
        network: str,
        identity: Identity | None = None,
        clock: Callable[[], float] = get_dht_time,
        admits: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._network = network
        self._admits = admits
        self._identity = identity
        self._clock = clock
        self._newest: dict[tuple[bytes, bytes], tuple[float, bytes]] = {}
        self._prune_at = 1024

    def validate(self, record: DHTRecord) -> bool:
        """Return whether the record may be stored or believed. Never raises, whatever it contains.

        An expired record is valid: dropping it is up to the storage.
        """
        key, subkey, value, expiration = (
            record.key,
            record.subkey,
            record.value,
            record.expiration_time,
        )
        if not (isinstance(key, bytes) and isinstance(subkey, bytes) and isinstance(value, bytes)):
            return False
        latest = latest_expiration_s(self._clock())
        if not isinstance(expiration, float) or not expiration <= latest:
            return False  # too far ahead, or not a number
        newest = self._newest.get((key, subkey))
        if newest is not None and newest[0] > latest:
            newest = None  # our clock has been set back since
        if newest is not None and expiration <= newest[0]:
            return (expiration, value) == newest
        if not self._is_genuine(key, subkey, value, expiration):
            return False
        self._remember(key, subkey, value, expiration)
        return True

    def sign_value(self, record: DHTRecord) -> bytes:
        """Return the value with our signature, if the record lies under our subkey.

        Otherwise return it unchanged, which makes it invalid.
        """
        value: bytes = record.value
        if self._identity is None or record.subkey != _subkey(self._identity.peer_id):
            return value
        return value + self._identity.sign(
            _signed_bytes(record.key, record.subkey, value, record.expiration_time)
        )

    def strip_value(self, record: DHTRecord) -> bytes:
        """Return the value without its signature. hivemind calls it for valid records only."""
        value: bytes = record.value
        return value[:-SIGNATURE_BYTES]

    def sift(self, key: bytes, dictionary: DictionaryDHTValue) -> bool:
        """Remove invalid records under `key`, in place. Return True: the rest stays usable.

        hivemind drops the whole dictionary for one bad record. A record that is only just valid on
        the clock of the storing node could so hide all others from readers whose clocks are behind.
        """
        dictionary.maxsize = float("inf")  # both came over the network, unchecked
        with dictionary.freeze():
            for number, (subkey, (value, expiration)) in enumerate(list(dictionary.items())):
                # an honest node has no more, and every signature takes time to check
                few = number < MAX_RECORDS
                if (
                    not few
                    or not isinstance(subkey, str)
                    or not self.validate(DHTRecord(key, _subkey(subkey), value, expiration))
                ):
                    del dictionary[subkey]
            newest = max(
                (expiration for _, (_, expiration) in dictionary.items()), default=float("-inf")
            )
        dictionary.latest_expiration_time = newest
        # without the removed ones' times
        dictionary.expiration_heap = sorted(dictionary.key_to_heap.values())
        return True

    def _is_genuine(self, key: bytes, subkey: bytes, value: bytes, expiration: float) -> bool:
        if len(value) > _MAX_VALUE_BYTES:
            return False
        packed, signature = value[:-SIGNATURE_BYTES], value[-SIGNATURE_BYTES:]
        try:
            record = decode(_unpack_bytes(packed))
        except InvalidRecord:
            return False
        return (
            record.network == self._network
            and subkey == _subkey(record.peer_id)
            and self._admits(record.peer_id)
            and any(key == DHTID.generate(allowed).to_bytes() for allowed in keys(record))
            and verify(record.peer_id, _signed_bytes(key, subkey, packed, expiration), signature)
        )

    def _remember(self, key: bytes, subkey: bytes, value: bytes, expiration: float) -> None:
        if len(self._newest) >= self._prune_at:
            now = self._clock()
            current = [(where, newest) for where, newest in self._newest.items() if newest[0] > now]
            self._newest = dict(current[-_MAX_REMEMBERED // 2 :])
            # so pruning costs a constant per record
            self._prune_at = max(1024, 2 * len(self._newest))
        self._newest[key, subkey] = (expiration, value)


def _subkey(peer_id: str) -> bytes:
    """Return a subkey as hivemind passes it to validators, in the only encoding that is
    accepted."""
    packed: bytes = MSGPackSerializer.dumps(peer_id)
    return packed


def _signed_bytes(key: bytes, subkey: bytes, packed: bytes, expiration: float) -> bytes:
    lengths = struct.pack(">IIId", len(key), len(subkey), len(packed), expiration)
    return _PURPOSE + lengths + key + subkey + packed


def _unpack_bytes(packed: bytes) -> bytes:
    """Return the content of one msgpack byte string, in the encoding of hivemind's serialiser.

    hivemind unpacks the stored value once more for the reader, with extension types that run code:
    anything but a plain byte string stops here.
    """
    for header_bytes in (2, 3):
        content = packed[header_bytes:]
        if packed == MSGPackSerializer.dumps(content):
            return content
    raise InvalidRecord("not a byte string")
