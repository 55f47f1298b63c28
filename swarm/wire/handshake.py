"""The handshake: how two members of the network prove to each other who they are.

It is the first thing on a link::

    dialling side                                         serving side
    Hello(nonce, versions, network, peer_id)          -->
                                                      <-- Welcome(nonce, version, peer_id,
                                                                  signature, proof)
    Introduction(signature, proof), first message ... -->

Both sign one transcript: all of the above, and the binding of the channel below. So nothing of it
can be replayed, relayed to a third party, or changed. In a private swarm both also prove, by a MAC
over the transcript, that they have the network's key. A side that is refused gets a Refusal, if
that is decided before it has proved anything.

These messages keep their form in all versions of the protocol. This module knows no sockets;
`swarm.network.links.handshake` sends them.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgpack
from pydantic import Field, ValidationError

from swarm.config import Network
from swarm.errors import RemoteViolation
from swarm.identity import Identity, verify
from swarm.wire.codec import PROTOCOL_VERSION, SUPPORTED_VERSIONS, WireError, unpack
from swarm.wire.fields import NetworkName, PeerId, ReasonText, printable
from swarm.wire.messages import WireMessage

MAX_HELLO_BYTES = 1024
MAX_VERSIONS = 16
NONCE_BYTES = 32
DIALLING, SERVING = b"swarm hello 1, dialling side", b"swarm hello 1, serving side"

Nonce = Annotated[bytes, Field(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Version = Annotated[int, Field(ge=1, lt=1 << 16)]
Signature = Annotated[bytes, Field(min_length=64, max_length=64)]
Proof = Annotated[bytes, Field(min_length=32, max_length=32)]


@dataclass(eq=False)
class HelloError(RemoteViolation):
    """The other side is not who it should be, or we have no language in common."""

    why: str

    def __str__(self) -> str:
        return f"no hello: {self.why}"


class Hello(WireMessage):
    """The dialling side's first message: the versions that it speaks, and its network.

    ``nonce`` was never used before.
    """

    nonce: Nonce
    versions: Annotated[
        tuple[Version, ...], Field(strict=False, min_length=1, max_length=MAX_VERSIONS)
    ]
    network: NetworkName
    peer_id: PeerId


class Welcome(WireMessage):
    """The serving side's answer: the version of this link, and its signature of the transcript.

    ``proof``: of the network's key, in a private swarm.
    """

    nonce: Nonce
    version: Version
    peer_id: PeerId
    signature: Signature
    proof: Proof | None = None


class Introduction(WireMessage):
    """The dialling side's signature of the transcript; its first message follows."""

    signature: Signature
    proof: Proof | None = None


class Refusal(WireMessage):
    """The serving side ends the handshake, and why."""

    text: ReasonText


_KINDS: dict[str, type[WireMessage]] = {
    each.__name__.lower(): each for each in (Hello, Welcome, Introduction, Refusal)
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
Kind = TypeVar("Kind", bound=WireMessage)


def encode(message: WireMessage) -> bytes:
    """Return the message as bytes, in the form of `swarm.wire.codec`.

    So a side that speaks older versions only can name the version that it met.
    """
    data: bytes = msgpack.packb(
        [PROTOCOL_VERSION, _NAMES[type(message)], message.model_dump(exclude_defaults=True)]
    )
    return data


def decode(data: bytes, kind: type[Kind]) -> Kind:
    """Return the message of this kind in ``data``.

    Raises:
        HelloError: if it is something else; for a `Refusal`, with its text.
    """
    if len(data) > MAX_HELLO_BYTES:
        raise HelloError(f"it begins with {len(data)} bytes, a hello has {MAX_HELLO_BYTES} at most")
    try:
        version, name, fields = unpack(data)
        found = _KINDS.get(name)
        if found is None and version not in SUPPORTED_VERSIONS:
            raise HelloError(not_spoken((version,), SUPPORTED_VERSIONS))
        if found is Refusal:
            raise HelloError(f"it refuses us: {Refusal.model_validate(fields).text}")
        if found is not kind:
            raise HelloError(f"it said {printable(name[:20])!r} where {_NAMES[kind]!r} was due")
        return kind.model_validate(fields)
    except WireError as error:
        raise HelloError(str(error)) from None
    except ValidationError:
        raise HelloError(f"its {_NAMES[kind]} is malformed") from None


@dataclass(frozen=True)
class LocalMember:
    """This process on its links: one identity in one network.

    Raises ConfigError if the network's list of members does not name it.
    """

    identity: Identity
    network: Network

    def __post_init__(self) -> None:
        self.network.check_member(self.identity.peer_id)

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id


@dataclass(frozen=True)
class Transcript:
    """What both sides sign.

    Attributes:
        binding: bytes that both ends of the channel below know, and that no other channel has.
    """

    hello: Hello
    nonce: bytes
    version: int
    server: str
    binding: bytes

    def said_by(self, side: bytes) -> bytes:
        """Return the bytes that a side signs.

        Each part follows its length, so that no two transcripts have the same bytes.
        """
        return b"".join(len(part).to_bytes(4, "big") + part for part in (side, *parts(self)))


def parts(transcript: Transcript) -> tuple[bytes, ...]:
    """Return the parts of a transcript that are signed."""
    hello = transcript.hello
    return (
        hello.nonce,
        transcript.nonce,
        b"".join(version.to_bytes(2, "big") for version in hello.versions),
        transcript.version.to_bytes(2, "big"),
        hello.network.encode(),
        hello.peer_id.encode(),
        transcript.server.encode(),
        transcript.binding,
    )


class DiallingSide:
    """The dialling side of one handshake.

    Args:
        expected: the id of the only peer that will do.
    """

    def __init__(
        self,
        me: LocalMember,
        expected: str,
        binding: bytes,
        versions: Sequence[int] = SUPPORTED_VERSIONS,
    ) -> None:
        self._me = me
        self._expected = expected
        self._binding = binding
        self.hello = Hello(
            nonce=new_nonce(),
            versions=tuple(versions),
            network=me.network.name,
            peer_id=me.identity.peer_id,
        )

    def welcomed(self, welcome: Welcome) -> Introduction:
        """Return the answer to a welcome that proves the expected peer.

        Raises `HelloError` if it does not.
        """
        if not is_expected(welcome.peer_id, self._expected):
            raise HelloError(
                f"it is the peer {_short(welcome.peer_id)}, not {_short(self._expected)}"
            )
        if not self._me.network.admits(welcome.peer_id):
            raise HelloError(f"the peer {_short(welcome.peer_id)} is not on our list of members")
        if welcome.version not in self.hello.versions:
            raise HelloError(not_spoken((welcome.version,), self.hello.versions))
        transcript = Transcript(
            self.hello, welcome.nonce, welcome.version, welcome.peer_id, self._binding
        )
        if not verify(welcome.peer_id, transcript.said_by(SERVING), welcome.signature):
            raise HelloError(f"it does not prove that it is {_short(welcome.peer_id)}")
        key = self._me.network.key
        if key is None and welcome.proof is not None:
            raise HelloError(
                "it belongs to a private swarm: give the network's key with --network-key FILE"
            )
        if not has_key(key, transcript.said_by(SERVING), welcome.proof):
            raise HelloError("it does not have our network's key")
        ours = transcript.said_by(DIALLING)
        return Introduction(signature=self._me.identity.sign(ours), proof=proof_of(key, ours))


class ServingSide:
    """The serving side of one handshake."""

    def __init__(
        self, me: LocalMember, binding: bytes, versions: Sequence[int] = SUPPORTED_VERSIONS
    ) -> None:
        self._me = me
        self._binding = binding
        self._versions = tuple(versions)
        self._transcript: Transcript | None = None

    def welcome(self, hello: Hello) -> Welcome:
        """Return the answer to a hello. Raises `HelloError`, whose text may be sent back."""
        network, identity = self._me.network, self._me.identity
        version = highest_common(hello.versions, self._versions)
        if version is None:
            raise HelloError(not_spoken(hello.versions, self._versions))
        if hello.network != network.name:
            raise HelloError(f"this is the network {network.name!r}, not {hello.network!r}")
        if not network.admits(hello.peer_id):
            raise HelloError(f"the peer {_short(hello.peer_id)} is not on the list of members")
        self._transcript = Transcript(hello, new_nonce(), version, identity.peer_id, self._binding)
        said = self._transcript.said_by(SERVING)
        return Welcome(
            nonce=self._transcript.nonce,
            version=version,
            peer_id=identity.peer_id,
            signature=identity.sign(said),
            proof=proof_of(network.key, said),
        )

    def introduced(self, introduction: Introduction) -> str:
        """Return the proven id of the other side. Raises `HelloError` if it is not proven."""
        assert self._transcript is not None  # it was welcomed
        peer_id, said = self._transcript.hello.peer_id, self._transcript.said_by(DIALLING)
        if not verify(peer_id, said, introduction.signature):
            raise HelloError(f"it does not prove that it is {_short(peer_id)}")
        if not has_key(self._me.network.key, said, introduction.proof):
            raise HelloError("it does not have this network's key")
        return peer_id


def new_nonce() -> bytes:
    """Return random bytes that were never used before."""
    return os.urandom(NONCE_BYTES)


def highest_common(offered: Sequence[int], ours: Sequence[int]) -> int | None:
    """Return the highest version that both sides speak; None if there is none."""
    return max(set(offered) & set(ours), default=None)


def not_spoken(theirs: Sequence[int], ours: Sequence[int]) -> str:
    """Return why two sides have no version in common."""
    return f"one side speaks protocol {max(theirs)}, the other {max(ours)}: update the older one"


def is_expected(found: str, expected: str) -> bool:
    """Return whether this is the peer that was dialled.

    A record may name another peer's address.
    """
    return found == expected


def proof_of(key: bytes | None, said: bytes) -> bytes | None:
    """Return a MAC made with the network's key; None if the network has none."""
    return None if key is None else hmac.new(key, said, hashlib.sha256).digest()


def has_key(key: bytes | None, said: bytes, proof: bytes | None) -> bool:
    """Return whether the other side has our network's key, if there is one."""
    return key is None or (
        proof is not None and hmac.compare_digest(proof, proof_of(key, said) or b"")
    )


def _short(peer_id: str) -> str:
    return f"...{peer_id[-8:]}"
