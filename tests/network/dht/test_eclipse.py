"""Nodes that stand too close together."""

import hashlib
import random

import pytest

from swarm.network.dht import eclipse
from swarm.network.dht.eclipse import AROUND, ID_BYTES, NEAR, EclipseDetector


def ids(count: int, rng: random.Random) -> list[bytes]:
    return [rng.randbytes(ID_BYTES) for _ in range(count)]


def nearest(key: bytes, nodes: list[bytes], count: int) -> list[bytes]:
    where = int.from_bytes(key, "big")
    return sorted(nodes, key=lambda node: where ^ int.from_bytes(node, "big"))[:count]


def seen(nodes: list[bytes], keys: list[bytes], rng: random.Random) -> EclipseDetector:
    """By a node that searches this network for these keys, and asks two nodes each."""
    ours = EclipseDetector()
    ours.place = rng.randbytes(ID_BYTES)
    for key in (ours.place, *keys):
        named = nearest(key, nodes, 20)
        ours.saw(key, named[::2])
        ours.saw(key, named[1:])
    return ours


def grind(key: bytes, nearer_than: bytes, count: int, rng: random.Random) -> list[bytes]:
    """Ids of this many nodes that are nearer to a key than a node is."""
    where = int.from_bytes(key, "big")
    bound = where ^ int.from_bytes(nearer_than, "big")
    return [(where ^ rng.randrange(bound)).to_bytes(ID_BYTES, "big") for _ in range(count)]


@pytest.mark.parametrize("network", [20, 100, 2000])
def test_honest_nodes_are_rarely_suspected_and_crowds_mostly(network: int) -> None:
    rng = random.Random(5)
    suspected = noticed = 0
    for _ in range(100):
        nodes, key = ids(network, rng), hashlib.sha1(rng.randbytes(8)).digest()
        suspected += seen(nodes, [key], rng).crowded(key)
        # The attacker's nodes are at the key, not where nobody knows that we look.
        sybils = grind(key, nearest(key, nodes, 1)[0], NEAR, rng)
        noticed += seen([*nodes, *sybils], [key], rng).crowded(key)
    assert suspected <= 3
    assert noticed >= 65  # 79 % among 20 honest nodes, 92 % among 2000


def test_nothing_is_said_of_what_was_not_seen() -> None:
    rng = random.Random(1)
    ours = EclipseDetector()
    key = rng.randbytes(ID_BYTES)
    assert not ours.crowded(key)
    ours.saw(key, grind(key, rng.randbytes(ID_BYTES), NEAR, rng))
    assert not ours.crowded(key)
    ours.saw(ours.place, ids(NEAR - 1, rng))
    assert not ours.crowded(key)


def test_another_place_makes_it_look_anew() -> None:
    rng = random.Random(2)
    key = rng.randbytes(ID_BYTES)
    nodes = ids(1000, rng)
    ours = seen(nodes + grind(key, nearest(key, nodes, 1)[0], 20, rng), [key], rng)
    before = ours.place
    assert ours.crowded(key)
    ours.move()
    assert ours.place != before
    assert not ours.crowded(key)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eclipse, "MAX_KEYS", 4)
    rng = random.Random(3)
    ours = seen(ids(1000, rng), ids(10, rng), rng)
    assert len(ours._near) == 4
    assert len(ours._near[ours.place]) == AROUND
