import asyncio
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

import swarm.identity as identities
from swarm.config import create_network_key, load_network_key
from swarm.errors import IdentityError
from swarm.identity import Identity, public_key_of, verify


def test_an_identity_survives_a_restart_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "home" / "keys" / "peer.pem"
    first = Identity.load_or_create(path)
    again = Identity.load_or_create(path)
    assert again.peer_id == first.peer_id
    assert again.certificate_fingerprint == first.certificate_fingerprint
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == path.parent.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["peer.pem"]


def test_the_key_is_encoded_as_libp2p_specifies() -> None:
    # The test vector of libp2p's peer-ids specification.
    seed = bytes.fromhex("7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d")
    public = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
    identity = Identity(Ed25519PrivateKey.from_private_bytes(seed))
    assert identity.libp2p_private_key.hex() == "08011240" + seed.hex() + public
    assert identity.peer_id.startswith("12D3KooW")
    assert public_key_of(identity.peer_id).public_bytes_raw().hex() == public


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "peer.pem"
    Identity.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(IdentityError, match=f"chmod 600 {path}"):
        Identity.load_or_create(path)


def test_anything_but_an_ed25519_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "peer.pem"
    rsa = generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content in (b"", b"garbage", b"\xff" * 5000, rsa):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(IdentityError, match=r"not an? .*key"):
            Identity.load_or_create(path)
    with pytest.raises(IdentityError, match="cannot read or write"):
        Identity.load_or_create(path / "below-a-file")
    with pytest.raises(IdentityError, match="cannot read or write"):
        Identity.load_or_create(tmp_path)


def test_signatures_hold_for_their_data_and_signer_only() -> None:
    ours, other = Identity.generate(), Identity.generate()
    signature = ours.sign(b"data")
    assert verify(ours.peer_id, b"data", signature)
    assert not verify(ours.peer_id, b"date", signature)
    assert not verify(other.peer_id, b"data", signature)
    assert not verify("1" + ours.peer_id, b"data", signature)


@given(st.text(), st.binary(), st.binary())
def test_verify_never_raises_on_what_a_stranger_sent(
    peer_id: str, data: bytes, signature: bytes
) -> None:
    assert not verify(peer_id, data, signature)
    assert not verify("12D3KooW" + peer_id[:44].ljust(44, "z"), data, signature)


def test_the_certificate_says_whose_it_is_and_never_changes() -> None:
    identity = Identity.generate()
    certificate = x509.load_der_x509_certificate(identity.certificate_der)
    assert certificate.subject.rfc4514_string() == f"CN={identity.peer_id}"
    assert certificate.public_key() == public_key_of(identity.peer_id)
    same_key = Identity(identity._key)
    assert same_key.certificate_der == identity.certificate_der
    assert len(identity.certificate_fingerprint) == 64


async def test_a_tls_client_sees_this_certificate() -> None:
    identity = Identity.generate()
    seen = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=identity.server_ssl_context())
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    async with server:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", server.sockets[0].getsockname()[1], ssl=client
        )
        session = writer.get_extra_info("ssl_object")
        seen.set_result((session.version(), session.getpeercert(binary_form=True)))
        writer.close()
    assert await seen == ("TLSv1.3", identity.certificate_der)


@pytest.mark.threat("readable-key")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("kind", ["identity", "network key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(
    kind: str, mode: int, defended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(identities, "OTHERS", 0)
    path = tmp_path / "secret.key"
    make, load = {
        "identity": (Identity.load_or_create, Identity.load_or_create),
        "network key": (create_network_key, load_network_key),
    }[kind]
    make(path)
    path.chmod(mode)
    if defended:
        with pytest.raises(IdentityError, match=f"chmod 600 {path}"):
            load(path)
    else:
        load(path)
