"""What a client remembers comes back, and nothing that lies in its file can hurt."""

import json
import time
from pathlib import Path

import pytest

from helpers.loopback import Server
from swarm.network import known_peers
from swarm.network.dht.records import PeerRecord
from swarm.network.known_peers import MAX_MODELS, MAX_NODES, MAX_PEERS, KnownPeers, Reputation

MODEL = "0" * 32
NODE = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWRHdv39CS4pr2WAuFzmzJzfNbJyequC8N2mtYNiEyk3xd"


def record(**changes: str) -> PeerRecord:
    server = Server(None)  # type: ignore[arg-type]
    server.address = "192.0.2.1:9000"
    return server.record(**changes)


def test_what_was_good_comes_back(tmp_path: Path) -> None:
    peers = [record(), record()]
    KnownPeers(tmp_path / "new", "test").remember([NODE], MODEL, peers)
    book = KnownPeers(tmp_path / "new", "test")
    assert book.nodes() == (NODE,)
    assert book.peers(MODEL) == tuple(peers)
    assert book.peers("1" * 32) == ()
    assert KnownPeers(tmp_path / "new", "other").peers(MODEL) == ()


def test_models_and_nodes_that_are_not_named_again_stay(tmp_path: Path) -> None:
    book = KnownPeers(tmp_path, "test")
    peer = record()
    book.remember([NODE], MODEL, [peer])
    book.remember([], "1" * 32, [record(fingerprint="1" * 32)])
    book.remember([], MODEL, [])
    assert book.nodes() == (NODE,)
    assert book.peers(MODEL) == (peer,)


def test_it_does_not_grow(tmp_path: Path) -> None:
    book = KnownPeers(tmp_path, "test")
    peer = record()
    for number in range(MAX_MODELS + 3):
        nodes = [NODE.replace("4001", str(4001 + i + number)) for i in range(MAX_NODES + 3)]
        book.remember(nodes, f"{number:032x}", [peer] * (MAX_PEERS + 3))
    assert len(book.nodes()) == MAX_NODES
    assert book.peers(f"{0:032x}") == ()
    assert len(book.peers(f"{MAX_MODELS + 2:032x}")) == MAX_PEERS
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("known")] == [
        "known-test.json"
    ]


def test_peers_of_long_ago_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = KnownPeers(tmp_path, "test")
    book.remember([], MODEL, [record()])
    monkeypatch.setattr(known_peers, "MAX_AGE_S", 0.0)
    assert book.peers(MODEL) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"nodes": 3}',
        '{"nodes": [], "models": {"x": {}}}',
        json.dumps({"nodes": [], "models": {MODEL: {"at": 1e99, "peers": [{"kind": "peer"}]}}}),
        "\x00" * 10,
        "[" * 100_000,
    ],
)
def test_a_page_that_makes_no_sense_is_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "known-test.json").write_text(text)
    book = KnownPeers(tmp_path, "test")
    assert (book.nodes(), book.peers(MODEL)) == ((), ())
    book.remember([NODE], MODEL, [])
    assert book.nodes() == (NODE,)


def test_what_is_no_address_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "known-test.json").write_text(
        json.dumps({"nodes": ["nonsense", NODE], "models": {}})
    )
    assert KnownPeers(tmp_path, "test").nodes() == (NODE,)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = KnownPeers(tmp_path / "file", "test")
    book.remember([NODE], MODEL, [record()])
    assert book.nodes() == ()


def test_liars_and_honest_peers_are_remembered(tmp_path: Path) -> None:
    book, later = KnownPeers(tmp_path, "test"), time.time() + 1000
    peers = ["A" * 20, "B" * 20, "C" * 20, "D" * 20]
    known = [
        Reputation(clean=5),
        Reputation(banned_until=later),
        Reputation(banned_until=1.0),
        Reputation(clean=7),
    ]
    book.remember([], MODEL, [], dict(zip(peers, known, strict=True)))
    assert KnownPeers(tmp_path, "test").reputations() == {
        peers[0]: known[0],
        peers[1]: known[1],
        peers[3]: known[3],
    }
    book.remember([NODE], MODEL, [], {peers[0]: Reputation(clean=9), peers[1]: Reputation(clean=1)})
    kept = {
        peers[0]: Reputation(clean=9),
        peers[1]: Reputation(clean=1, banned_until=later),
        peers[3]: known[3],
    }
    assert book.reputations() == kept, "the ban of another client stays"


def test_of_too_many_the_banned_and_the_long_known_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_peers, "MAX_REPUTATIONS", 2)
    book, later = KnownPeers(tmp_path, "test"), time.time() + 1000
    known = {
        "A" * 20: Reputation(clean=5),
        "B" * 20: Reputation(banned_until=later),
        "C" * 20: Reputation(clean=7),
    }
    book.remember([], MODEL, [], known)
    assert set(book.reputations()) == {"B" * 20, "C" * 20}
