from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord
from hivemind.utils import MSGPackSerializer
from hypothesis import example, given
from hypothesis import strategies as st

import swarm.network.dht.records
import swarm.network.dht.validator
from helpers.records import peer_record
from swarm.identity import Identity
from swarm.network.dht.keys import Shard, models_key, span_key, way_of
from swarm.network.dht.records import CLOCK_SKEW_S, RECORD_LIFETIME_S, PeerRecord, encode, keys
from swarm.network.dht.validator import RecordValidator

NOW = 1000.0
OWNER, OTHER = Identity.generate(), Identity.generate()
LATEST = NOW + RECORD_LIFETIME_S + CLOCK_SKEW_S


def validator(identity: Identity | None = None, *, now: float = NOW) -> RecordValidator:
    return RecordValidator("test", identity, clock=lambda: now)


def record_of(identity: Identity = OWNER, **changes: Any) -> PeerRecord:
    return peer_record(identity.peer_id, **({"first_layer": 2} | changes))


def signed(
    record: PeerRecord | None = None,
    *,
    signer: Identity = OWNER,
    key: str | None = None,
    subkey: str | None = None,
    value: Any = None,
    expiration: float = NOW + 60,
) -> DHTRecord:
    """A record as it arrives over the network, signed by `signer` for the subkey it lies under."""
    record = record or record_of()
    subkey = record.peer_id if subkey is None else subkey
    packed = MSGPackSerializer.dumps(encode(record) if value is None else value)
    key_id = DHTID.generate(key or record.key()).to_bytes()
    bare = DHTRecord(key_id, MSGPackSerializer.dumps(signer.peer_id), packed, expiration)
    unsigned = replace(bare, subkey=MSGPackSerializer.dumps(subkey))
    if subkey == signer.peer_id:
        return replace(unsigned, value=validator(signer).sign_value(bare))
    # sign_value refuses foreign subkeys, a forger would not: sign just what a checker will compute
    forger = RecordValidator("test", signer)
    forger._identity = type("Forger", (), {"peer_id": subkey, "sign": staticmethod(signer.sign)})()
    return replace(unsigned, value=forger.sign_value(unsigned))


BLOCK, WAY = record_of().block, way_of(OWNER.peer_id)
ASIDE = Shard(BLOCK, WAY[:5]).sibling.path


def test_the_owners_records_are_valid_in_all_their_places() -> None:
    spot, entry = record_of(), record_of().model_record()
    for key in keys(spot):
        assert validator().validate(signed(spot, key=key))
    for key in keys(entry):
        listed = signed(spot, key=key, value=encode(entry))
        assert validator().validate(listed)
        assert MSGPackSerializer.loads(validator().strip_value(listed)) == encode(entry)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(replace(signed(), value=validator().strip_value(signed())), id="unsigned"),
        pytest.param(signed(signer=OTHER), id="signed by another"),
        pytest.param(
            signed(signer=OTHER, subkey=OTHER.peer_id), id="another's subkey, our content"
        ),
        pytest.param(
            signed(record_of(OTHER), signer=OWNER, subkey=OWNER.peer_id),
            id="our subkey, another's content",
        ),
        pytest.param(replace(signed(), expiration_time=NOW + 61), id="expiration changed"),
        pytest.param(signed(expiration=LATEST + 1), id="lives too long"),
        pytest.param(signed(expiration=float("inf")), id="lives for ever"),
        pytest.param(signed(expiration=float("nan")), id="no expiration"),
        pytest.param(
            signed(key=span_key("test", "0" * 32, Shard(BLOCK + 1))), id="under another block"
        ),
        pytest.param(
            signed(key=span_key("test", "1" * 32, Shard(BLOCK))), id="under another model"
        ),
        pytest.param(
            signed(key=span_key("test", "0" * 32, Shard(BLOCK, ASIDE))), id="aside of its way"
        ),
        pytest.param(
            signed(key=span_key("test", "0" * 32, Shard(BLOCK, WAY + "0"))), id="below the last key"
        ),
        pytest.param(signed(key=models_key("test")), id="a peer among the models"),
        pytest.param(signed(key="unknown"), id="unknown key"),
        pytest.param(signed(record_of(network="elsewhere")), id="another network"),
        pytest.param(signed(value=b"garbage"), id="malformed"),
        pytest.param(signed(value={"not": "bytes"}), id="not bytes"),
        pytest.param(replace(signed(), subkey=MSGPackSerializer.dumps(None)), id="a plain value"),
        pytest.param(replace(signed(), subkey=b""), id="a whole dictionary"),
        pytest.param(
            replace(signed(), subkey=b"\xda\x00\x34" + OWNER.peer_id.encode()),
            id="odd subkey encoding",
        ),
        pytest.param(replace(signed(), value=b""), id="empty"),
        pytest.param(replace(signed(), value=7), id="not even bytes"),
        pytest.param(replace(signed(), expiration_time="soon"), id="not even a time"),
    ],
)
def test_what_is_refused(record: DHTRecord) -> None:
    assert not validator().validate(record)
    assert not validator(OWNER).validate(record)


@given(st.binary(), st.binary(), st.binary(), st.floats())
@example(b"", b"", b"", float("-inf"))
def test_hostile_fields_never_raise(
    key: bytes, subkey: bytes, value: bytes, expiration: float
) -> None:
    assert not validator().validate(DHTRecord(key, subkey, value, expiration))
    assert not validator().validate(replace(signed(), value=value, expiration_time=expiration))


def test_a_replayed_older_record_is_refused() -> None:
    checker = validator()
    older, newer = (
        signed(expiration=NOW + 40),
        signed(record_of(state="offline"), expiration=NOW + 60),
    )
    assert checker.validate(older)
    assert checker.validate(newer)
    assert not checker.validate(older)
    assert checker.validate(newer)


def test_a_forgery_does_not_outdate_the_real_record() -> None:
    checker = validator()
    assert not checker.validate(replace(signed(), expiration_time=NOW + 64))
    assert checker.validate(signed())


def test_memory_of_expired_records_is_given_back() -> None:
    now = NOW
    checker = RecordValidator("test", clock=lambda: now)
    checker._prune_at = 1
    assert checker.validate(signed())
    now += 100
    checker._prune_at = 1
    assert checker.validate(signed(record_of(OTHER), signer=OTHER, expiration=now + 60))
    assert len(checker._newest) == 1


def test_one_bad_record_does_not_hide_the_good_ones() -> None:
    """The bad one is valid on the clock of the node that stores it, and not on the reader's, 4 s
    behind."""
    stored = DictionaryDHTValue(maxsize=1)
    ours = signed(expiration=NOW + 50)
    theirs = signed(record_of(OTHER), signer=OTHER, expiration=LATEST)
    with stored.freeze():
        stored.store(OWNER.peer_id, ours.value, ours.expiration_time)
        stored.store(OTHER.peer_id, theirs.value, theirs.expiration_time)
        stored.store(5, b"", LATEST)
        stored.maxsize = "many"
    assert validator().validate(theirs)
    assert validator(now=NOW - 4).sift(ours.key, stored)
    with stored.freeze():
        assert dict(stored.items()) == {OWNER.peer_id: (ours.value, NOW + 50)}
    assert stored.latest_expiration_time == NOW + 50


defended_or_not = pytest.mark.parametrize("defended", [True, False])


@defended_or_not
@pytest.mark.threat("stale-record")
def test_an_old_record_does_not_come_back_under_a_later_time(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:  # a signature that does not cover the time
        covered = swarm.network.dht.validator._signed_bytes
        monkeypatch.setattr(
            swarm.network.dht.validator,
            "_signed_bytes",
            lambda key, subkey, packed, _: covered(key, subkey, packed, 0.0),
        )
    checker = validator()
    old, new = signed(expiration=NOW + 20), signed(record_of(state="offline"), expiration=NOW + 40)
    assert checker.validate(old)
    assert checker.validate(new)
    assert checker.validate(replace(old, expiration_time=NOW + 60)) != defended


@defended_or_not
@pytest.mark.threat("stale-record")
def test_an_old_record_does_not_come_back_in_its_time(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(RecordValidator, "_remember", lambda *_: None)
    checker = validator()
    old, new = signed(expiration=NOW + 40), signed(record_of(state="offline"), expiration=NOW + 60)
    assert checker.validate(new)
    assert checker.validate(old) != defended


@defended_or_not
@pytest.mark.threat("long-lived-record")
@pytest.mark.parametrize("too_late", [LATEST + 0.01, NOW + 3600, NOW + 1e9])
def test_a_record_lives_for_a_minute(
    defended: bool, too_late: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(swarm.network.dht.records, "RECORD_LIFETIME_S", float("inf"))
    assert validator().validate(signed(expiration=LATEST))
    assert validator().validate(signed(expiration=too_late)) != defended


@pytest.mark.parametrize("skew_s", [-CLOCK_SKEW_S, 0.0, CLOCK_SKEW_S])
def test_clocks_may_differ_so_far(skew_s: float) -> None:
    """The owner's clock is at NOW, the checker's elsewhere."""
    assert validator(now=NOW - skew_s).validate(signed(expiration=NOW + RECORD_LIFETIME_S))
    behind = validator(now=NOW - CLOCK_SKEW_S - 0.01)
    assert not behind.validate(signed(expiration=NOW + RECORD_LIFETIME_S))


@defended_or_not
@pytest.mark.threat("flooded-key")
def test_a_reader_checks_so_many_records_of_one_answer(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node may answer with as many as fit a message, and each costs the reader a signature to
    check."""
    checked = []
    if not defended:
        monkeypatch.setattr(swarm.network.dht.validator, "MAX_RECORDS", 1 << 40)
    monkeypatch.setattr(swarm.network.dht.validator, "verify", lambda *_: checked.append(1) or True)
    answer = DictionaryDHTValue()
    with answer.freeze():
        for _ in range(300):
            someone = Identity.generate()
            record = signed(record_of(someone), signer=someone)
            answer.store(someone.peer_id, record.value, record.expiration_time)
    validator().sift(record.key, answer)
    assert len(checked) == (256 if defended else 300)


def test_memory_of_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm.network.dht.validator, "_MAX_REMEMBERED", 8)
    checker = RecordValidator("test", clock=lambda: NOW)
    checker._prune_at = 8
    for number in range(20):
        checker._prune_at = min(checker._prune_at, 8)
        checker._remember(b"key", bytes([number]), b"", NOW + 60)
        assert len(checker._newest) <= 8


def test_records_of_strangers_are_refused_in_a_private_swarm() -> None:
    checker = RecordValidator(
        "test", clock=lambda: NOW, admits=lambda peer_id: peer_id == OWNER.peer_id
    )
    assert checker.validate(signed())
    assert not checker.validate(signed(record_of(OTHER), signer=OTHER))
