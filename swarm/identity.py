"""The identity of a peer: one Ed25519 key.

The key is its libp2p peer id, signs its records, and makes its TLS certificate.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import ssl
import tempfile
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from swarm.errors import IdentityError

# A libp2p peer id is base58(multihash). Keys of up to 42 bytes are not hashed: the id is the
# "identity" multihash (code 0x00, length 0x24) of the protobuf PublicKey {1: key type Ed25519 = 1,
# 2: 32 bytes}, so it contains the key.
_PEER_ID_PREFIX = bytes.fromhex("0024") + bytes.fromhex("08011220")
_PEER_ID_CHARS = 52
_PRIVATE_KEY_PREFIX = bytes.fromhex("08011240")  # protobuf PrivateKey {1: Ed25519, 2: 64 bytes}
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

MAX_KEY_BYTES = 4096
OTHERS = 0o077  # the part of a file's mode that concerns other users

# The certificate must be the same bytes after every restart, so nothing in it depends on a clock or
# on randomness. Peers trust its fingerprint in a short-lived signed record, so that a long validity
# does no harm.
_VALID_FROM = datetime(2020, 1, 1, tzinfo=timezone.utc)
_VALID_UNTIL = datetime(2120, 1, 1, tzinfo=timezone.utc)


class Identity:
    """One private key and everything that follows from it.

    Immutable; safe to share between tasks and threads.

    Attributes:
        file: where the key is kept; None for one that lives in memory only.
    """

    def __init__(self, key: Ed25519PrivateKey, file: Path | None = None) -> None:
        self._key = key
        self.file = file

    @classmethod
    def generate(cls) -> Identity:
        """Return a new identity that exists in memory only."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: Path) -> Identity:
        """Return the identity in the file `path` (PEM, mode 0600), created if missing.

        Two processes that create it at once get the same identity. Raise IdentityError if the file
        cannot be read or written, others can read it, or it holds anything but an Ed25519 key.
        """
        try:
            if not path.exists():
                _create(path, cls.generate()._pem)
            return cls._load(path)
        except OSError as error:
            raise IdentityError(
                str(path), f"cannot read or write this key file ({error.strerror or error})"
            ) from error

    @classmethod
    def _load(cls, path: Path) -> Identity:
        pem = read_private(path)
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(
                str(path), "not a private key; move the file away to get a new identity"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(
                str(path), "not an Ed25519 key; move the file away to get a new identity"
            )
        return cls(key, path)

    @cached_property
    def peer_id(self) -> str:
        """The libp2p peer id, "12D3KooW…"."""
        return _base58_encode(_PEER_ID_PREFIX + self._public_bytes)

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of `data`.

        Callers have to prefix the data with its purpose.
        """
        return self._key.sign(data)

    @property
    def libp2p_private_key(self) -> bytes:
        """The key as libp2p's protobuf PrivateKey, whose data is private ‖ public."""
        return _PRIVATE_KEY_PREFIX + self._key.private_bytes_raw() + self._public_bytes

    @cached_property
    def certificate_der(self) -> bytes:
        """A self-signed X.509 certificate of this key, CN = peer id, the same bytes every time."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.peer_id)])
        serial = int.from_bytes(
            hashlib.sha256(b"swarm certificate serial" + self._public_bytes).digest()[:16], "big"
        )
        builder = x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=self._key.public_key(),
            serial_number=serial | 1,  # zero is not a serial
            not_valid_before=_VALID_FROM,
            not_valid_after=_VALID_UNTIL,
        )
        return builder.sign(self._key, algorithm=None).public_bytes(Encoding.DER)

    @cached_property
    def certificate_fingerprint(self) -> str:
        """SHA-256 of the certificate's DER, 64 lowercase hex characters."""
        return hashlib.sha256(self.certificate_der).hexdigest()

    def server_ssl_context(self) -> ssl.SSLContext:
        """Return a server context with this identity's certificate. TLS 1.3 only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # The ssl module reads certificates only from files. The directory is private (0700), and
        # removed on return.
        with tempfile.TemporaryDirectory(prefix="swarm-tls-") as folder:
            chain = Path(folder, "chain.pem")
            write_private(
                chain, self._pem + ssl.DER_cert_to_PEM_cert(self.certificate_der).encode()
            )
            context.load_cert_chain(chain)
        return context

    @property
    def _public_bytes(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def _pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"  # never the key


def public_key_of(peer_id: str) -> Ed25519PublicKey:
    """Return the public key inside a peer id.

    Raise IdentityError if `peer_id` is not the canonical id of an Ed25519 key.
    """
    raw = _base58_decode(peer_id) if len(peer_id) == _PEER_ID_CHARS else b""
    if len(raw) != len(_PEER_ID_PREFIX) + 32 or not raw.startswith(_PEER_ID_PREFIX):
        raise IdentityError(
            repr(peer_id[:80]), "not the peer id of an Ed25519 key, which starts with 12D3KooW"
        )
    return Ed25519PublicKey.from_public_bytes(raw[len(_PEER_ID_PREFIX) :])


def verify(peer_id: str, data: bytes, signature: bytes) -> bool:
    """Tell whether `signature` over `data` was made by the key inside `peer_id`.

    Never raise on untrusted input.
    """
    try:
        public_key_of(peer_id).verify(signature, data)
    except (IdentityError, InvalidSignature):
        return False
    return True


def read_private(path: Path) -> bytes:
    """Return the first `MAX_KEY_BYTES` of a file with a secret; every key is shorter.

    Raise IdentityError if others can read the file, too, and OSError.
    """
    with path.open("rb") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & OTHERS:
            raise IdentityError(
                str(path), f"others can read this private key, so run `chmod 600 {path}`"
            )
        return file.read(MAX_KEY_BYTES)


def write_private(path: Path, content: bytes) -> None:
    """Create `path` with mode 0600 and this content.

    Raise FileExistsError if it exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _create(path: Path, pem: bytes) -> None:
    """Create the whole file atomically, unless another process has created it first."""
    for folder in reversed([path.parent, *path.parent.parents]):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_private(draft, pem)
    try:
        os.link(draft, path)  # unlike rename, it never replaces an identity
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _base58_encode(raw: bytes) -> str:
    number, digits = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + digits


def _base58_decode(text: str) -> bytes:
    """Return the bytes, or none if a character is invalid.

    The caller bounds the length: the work grows with its square.
    """
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            return b""
        number = number * 58 + digit
    return b"\0" * (len(text) - len(text.lstrip("1"))) + number.to_bytes(
        (number.bit_length() + 7) // 8, "big"
    )
