"""The handshake without links: two sides, and an attacker between them.

The attacker may change, replay and pass on what they say.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.config import Network
from swarm.identity import Identity
from swarm.wire import handshake
from swarm.wire.codec import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, WireError
from swarm.wire.codec import decode as decode_message
from swarm.wire.codec import encode as encode_message
from swarm.wire.handshake import (
    DIALLING,
    MAX_HELLO_BYTES,
    SERVING,
    DiallingSide,
    Hello,
    HelloError,
    Introduction,
    LocalMember,
    Refusal,
    ServingSide,
    Transcript,
    Welcome,
    decode,
    encode,
    highest_common,
)
from swarm.wire.messages import Ping, WireMessage

OPEN, KEY = Network("test"), b"k" * 32
PRIVATE = Network("test", key=KEY)
ALICE, BOB, MALLORY = (Identity.generate() for _ in range(3))
CHANNEL = b"tls-server-end-point:00"

Change = Callable[[WireMessage], WireMessage]


def same(message: WireMessage) -> WireMessage:
    return message


def meet(
    dialling: LocalMember,
    serving: LocalMember,
    *,
    expected: str = BOB.peer_id,
    channels: tuple[bytes, bytes] = (CHANNEL, CHANNEL),
    versions: tuple[tuple[int, ...], tuple[int, ...]] = ((4,), (4,)),
    on_the_way: Change = same,
) -> str:
    """A whole hello over bytes; returns whom the serving side takes the other one for."""
    one, other = (
        DiallingSide(dialling, expected, channels[0], versions[0]),
        ServingSide(serving, channels[1], versions[1]),
    )

    def carried(message: WireMessage, kind: type[WireMessage]) -> WireMessage:
        return decode(encode(on_the_way(message)), kind)

    welcome = other.welcome(carried(one.hello, Hello))  # type: ignore[arg-type]
    introduction = one.welcomed(carried(welcome, Welcome))  # type: ignore[arg-type]
    return other.introduced(carried(introduction, Introduction))  # type: ignore[arg-type]


@pytest.mark.parametrize("network", [OPEN, PRIVATE], ids=["open", "private"])
def test_both_sides_know_each_other_afterwards(network: Network) -> None:
    assert meet(LocalMember(ALICE, network), LocalMember(BOB, network)) == ALICE.peer_id


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        (OPEN, PRIVATE, "--network-key"),
        (PRIVATE, OPEN, "does not have our network's key"),
        (PRIVATE, Network("test", key=b"x" * 32), "does not have our network's key"),
        (OPEN, Network("other"), "'other'"),
        (OPEN, Network("test", members=frozenset({BOB.peer_id})), "not on the list"),
        (Network("test", members=frozenset({ALICE.peer_id})), OPEN, "not on our list"),
    ],
    ids=[
        "no key",
        "their key is missing",
        "another key",
        "another network",
        "we are not listed",
        "they are not listed",
    ],
)
def test_who_does_not_belong_to_the_network_is_told_why(
    ours: Network, theirs: Network, why: str
) -> None:
    with pytest.raises(HelloError, match=why):
        meet(LocalMember(ALICE, ours), LocalMember(BOB, theirs))


def test_another_peer_than_the_expected_one_is_refused() -> None:
    with pytest.raises(HelloError, match=f"not ...{MALLORY.peer_id[-8:]}"):
        meet(LocalMember(ALICE, OPEN), LocalMember(BOB, OPEN), expected=MALLORY.peer_id)


def test_the_highest_common_version_is_spoken() -> None:
    assert highest_common((3, 4, 6), (4, 5, 3)) == 4
    assert highest_common((3,), (4,)) is None
    dialling, serving = (
        DiallingSide(LocalMember(ALICE, OPEN), BOB.peer_id, CHANNEL, (3, 4)),
        ServingSide(LocalMember(BOB, OPEN), CHANNEL, (4, 5)),
    )
    assert serving.welcome(dialling.hello).version == 4
    with pytest.raises(
        HelloError, match="one side speaks protocol 3, the other 4: update the older one"
    ):
        meet(LocalMember(ALICE, OPEN), LocalMember(BOB, OPEN), versions=((3,), (4,)))


def test_a_side_that_knows_no_hello_and_ours_say_what_to_update() -> None:
    old = encode_message(Ping(nonce=1)).replace(bytes([0x93, PROTOCOL_VERSION]), b"\x93\x03", 1)
    with pytest.raises(HelloError, match="speaks protocol 3"):
        decode(old, Hello)
    with pytest.raises(WireError, match=f"protocol version {PROTOCOL_VERSION}, this side speaks 3"):
        decode_message(encode(Refusal(text="no")), 3)


# What an attacker on the way may do.


def dropping(*names: str) -> Callable[[Transcript], tuple[bytes, ...]]:
    """A transcript without some of its parts."""
    whole, at = (
        handshake.parts,
        ("nonce", "server nonce", "offered", "version", "network", "client", "server", "channel"),
    )
    return lambda transcript: tuple(
        part for name, part in zip(at, whole(transcript), strict=True) if name not in names
    )


@pytest.mark.threat("downgrade")
@pytest.mark.parametrize("defended", [True, False])
def test_nobody_makes_two_sides_speak_an_older_version(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(handshake, "parts", dropping("offered"))
    spoken: list[int] = []

    def strip(message: WireMessage) -> WireMessage:
        if isinstance(message, Hello):
            return message.model_copy(update={"versions": (3,)})
        if isinstance(message, Welcome):
            spoken.append(message.version)
        return message

    def attack() -> str:
        return meet(
            LocalMember(ALICE, OPEN),
            LocalMember(BOB, OPEN),
            versions=((3, 4), (3, 4)),
            on_the_way=strip,
        )

    if defended:
        with pytest.raises(HelloError, match="does not prove"):
            attack()
    else:
        assert attack() == ALICE.peer_id
        assert spoken == [3]


@pytest.mark.threat("replayed-hello")
@pytest.mark.parametrize("defended", [True, False])
def test_a_recorded_hello_is_of_no_use_again(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(handshake, "new_nonce", lambda: bytes(32))
    recorded: list[WireMessage] = []

    def record(message: WireMessage) -> WireMessage:
        recorded.append(message)
        return message

    meet(LocalMember(ALICE, OPEN), LocalMember(BOB, OPEN), on_the_way=record)
    said, _, introduction = recorded
    again = ServingSide(LocalMember(BOB, OPEN), CHANNEL)
    assert isinstance(said, Hello)
    assert isinstance(introduction, Introduction)
    again.welcome(said)
    if defended:
        with pytest.raises(HelloError, match="does not prove"):
            again.introduced(introduction)
    else:
        assert again.introduced(introduction) == ALICE.peer_id


@pytest.mark.threat("passed-on-hello")
@pytest.mark.parametrize("defended", [True, False])
def test_a_hello_made_for_one_member_is_of_no_use_at_another(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alice dials Mallory, who is a member and passes on to Bob what she says, under a certificate
    of Mallory's."""
    if not defended:
        monkeypatch.setattr(handshake, "parts", dropping("server", "channel"))
    alice = DiallingSide(LocalMember(ALICE, PRIVATE), MALLORY.peer_id, b"mallory's")
    bob = ServingSide(LocalMember(BOB, PRIVATE), b"bob's")
    welcome = bob.welcome(alice.hello)
    said = Transcript(
        alice.hello, welcome.nonce, welcome.version, MALLORY.peer_id, b"mallory's"
    ).said_by(SERVING)
    mallorys = welcome.model_copy(
        update={
            "peer_id": MALLORY.peer_id,
            "signature": MALLORY.sign(said),
            "proof": handshake.proof_of(KEY, said),
        }
    )
    introduction = alice.welcomed(mallorys)
    if defended:
        with pytest.raises(HelloError, match="does not prove"):
            bob.introduced(introduction)
    else:
        assert bob.introduced(introduction) == ALICE.peer_id


@pytest.mark.threat("stranger-on-link")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("how", ["no key", "another key", "not on the list"])
def test_a_stranger_who_keeps_to_the_form_is_not_let_in(
    how: str, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = (
        Network("test", members=frozenset({BOB.peer_id})) if how == "not on the list" else PRIVATE
    )
    if not defended:
        monkeypatch.setattr(Network, "admits", lambda *_: True)
        monkeypatch.setattr(handshake, "has_key", lambda *_: True)
    bob = ServingSide(LocalMember(BOB, network), CHANNEL)
    said = DiallingSide(LocalMember(ALICE, OPEN), BOB.peer_id, CHANNEL).hello

    def attack() -> str:
        welcome = bob.welcome(said)
        ours = Transcript(said, welcome.nonce, welcome.version, BOB.peer_id, CHANNEL).said_by(
            DIALLING
        )
        key = {"another key": b"x" * 32}.get(how)
        return bob.introduced(
            Introduction(signature=ALICE.sign(ours), proof=handshake.proof_of(key, ours))
        )

    if defended:
        with pytest.raises(HelloError, match=r"key|list"):
            attack()
    else:
        assert attack() == ALICE.peer_id


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_is_changed_on_the_way_is_noticed(data: st.DataObject) -> None:
    """In either direction, in any field, even where both versions are spoken."""
    place = data.draw(st.integers(0, 2))
    changed = False

    def change(message: WireMessage) -> WireMessage:
        nonlocal changed
        if [Hello, Welcome, Introduction].index(type(message)) != place:
            return message
        name = data.draw(st.sampled_from(sorted(type(message).model_fields)))
        old = getattr(message, name)
        if isinstance(old, bytes):
            flipped = bytearray(old)
            flipped[data.draw(st.integers(0, len(old) - 1))] ^= data.draw(st.integers(1, 255))
            new: object = bytes(flipped)
        else:
            other = {"version": 3, "versions": (3,), "network": "other", "peer_id": MALLORY.peer_id}
            new = other[name]
        changed = True
        return message.model_copy(update={name: new})

    with pytest.raises(HelloError):
        meet(
            LocalMember(ALICE, PRIVATE),
            LocalMember(BOB, PRIVATE),
            versions=((3, 4), (3, 4)),
            on_the_way=change,
        )
    assert changed


names = st.sampled_from(["a", "ab", "b"])
transcripts = st.builds(
    lambda nonce, versions, network, client, other, version, server, channel: Transcript(
        Hello(nonce=bytes([nonce]) * 32, versions=versions, network=network, peer_id=client * 10),
        bytes([other]) * 32,
        version,
        server * 10,
        channel,
    ),
    st.integers(0, 1),
    st.lists(st.integers(1, 300), min_size=1, max_size=3).map(tuple),
    names,
    names,
    st.integers(0, 1),
    st.integers(1, 300),
    names,
    st.binary(max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(transcripts, transcripts)
def test_two_transcripts_are_never_signed_alike(one: Transcript, other: Transcript) -> None:
    assert (one.said_by(DIALLING) == other.said_by(DIALLING)) == (one == other)
    assert one.said_by(DIALLING) != other.said_by(SERVING)
    longer = replace(one, binding=one.binding + b"\0")
    assert len({each.said_by(SERVING) for each in (one, longer)}) == 2


def test_every_part_is_signed() -> None:
    said = Hello(nonce=bytes(32), versions=(4,), network="a", peer_id=ALICE.peer_id)
    base = Transcript(said, bytes(32), 4, BOB.peer_id, b"one")
    others = [
        replace(base, hello=said.model_copy(update=change))
        for change in (
            {"nonce": b"1" * 32},
            {"versions": (3, 4)},
            {"network": "b"},
            {"peer_id": MALLORY.peer_id},
        )
    ]
    others += [
        replace(base, **change)
        for change in ({"nonce": b"1" * 32}, {"version": 3}, {"server": "x"})
    ]  # type: ignore[arg-type]
    others.append(replace(base, binding=b"two"))
    for one, other in combinations([base, *others], 2):
        assert one.said_by(SERVING) != other.said_by(SERVING)


# Bytes from outside.


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([Hello, Welcome, Introduction]))
def test_bytes_that_are_no_hello_are_refused(data: bytes, kind: type[WireMessage]) -> None:
    with pytest.raises(HelloError):
        decode(data, kind)


@pytest.mark.parametrize(
    "data",
    [
        bytes(MAX_HELLO_BYTES + 1),
        encode(Refusal(text="no")).replace(b"refusal", b"unknown", 1),
        encode(Hello(nonce=bytes(32), versions=(4,), network="a", peer_id=ALICE.peer_id)).replace(
            b"nonce", b"nance"
        ),
        encode(Hello(nonce=bytes(32), versions=(4,), network="a", peer_id=ALICE.peer_id)),
        encode_message(Ping(nonce=1)),
    ],
    ids=["too long", "unknown", "another field", "another kind", "a message"],
)
def test_what_is_malformed_is_named(data: bytes) -> None:
    assert len(data) < MAX_MESSAGE_BYTES
    with pytest.raises(HelloError) as caught:
        decode(data, Introduction)
    assert len(str(caught.value)) < 200


def test_what_a_refusal_says_is_passed_on_without_control_characters() -> None:
    with pytest.raises(HelloError, match="it refuses us: come  later"):
        decode(encode(Refusal(text="come\r\nlater")), Welcome)
