"""Why a model cannot be used, in a sentence for each kind of reason."""

from dataclasses import dataclass

import pytest

from swarm.client.incomplete import found_elsewhere, reason, unserved
from swarm.network.dht.lookup import ModelEntry
from swarm.routing.chain import gaps

LAYERS = 8


@dataclass(frozen=True)
class Peer:
    first_layer: int
    last_layer: int
    state: str = "online"
    rtt_ms: float | None = 10.0
    peer_id: str = "a"

    @property
    def layers(self) -> tuple[int, int]:
        return self.first_layer, self.last_layer


def loading(first: int, last: int) -> Peer:
    return Peer(first, last, state="joining")


def unreachable(first: int, last: int, state: str = "online") -> Peer:
    return Peer(first, last, state, rtt_ms=None)


def leaving(first: int, last: int) -> Peer:
    return Peer(first, last, state="draining")


def why(
    *peers: Peer, others: tuple[ModelEntry, ...] = (), siblings: dict[str, str] | None = None
) -> str:
    missing = gaps(
        [each for each in peers if each.state == "online" and each.rtt_ms is not None], LAYERS
    )
    entry = ModelEntry("m", "a" * 32, LAYERS, 0)
    return reason("m", LAYERS, peers, missing, found_elsewhere(entry, others, siblings or {}))


@pytest.mark.parametrize(
    ("peers", "said"),
    [
        ((Peer(0, 8),), ""),
        ((), "m cannot be used now: no peer serves it."),
        ((Peer(0, 4),), "m cannot be used now: no peer serves layers 4:8."),
        ((Peer(2, 4), Peer(6, 7)), "m cannot be used now: no peer serves layers 0:2, 4:6, 7:8."),
        (
            (Peer(0, 4), loading(3, 8)),
            "m cannot be used now: layers 4:8 are being loaded by 1 peer.",
        ),
        (
            (Peer(0, 4), unreachable(0, 6), unreachable(4, 8), unreachable(0, 2)),
            "m cannot be used now: layers 4:8 are served only by 2 peers that cannot be reached.",
        ),
        (
            (Peer(0, 4), leaving(4, 8)),
            "m cannot be used now: layers 4:8 are served only by 1 peer on the way out.",
        ),
        (
            (loading(0, 3), unreachable(0, 4, state="joining"), leaving(3, 5), unreachable(5, 6)),
            "m cannot be used now: layers 0:3 are being loaded by 1 peer, "
            "layers 3:4, 5:6 are served only by 2 peers that cannot be reached, "
            "layers 4:5 are served only by 1 peer on the way out and no peer serves layers 6:8.",
        ),
    ],
)
def test_each_layer_has_a_reason(peers: tuple[Peer, ...], said: str) -> None:
    assert why(*peers) == said


def test_the_same_model_with_another_fingerprint_is_named() -> None:
    others = (
        ModelEntry("m", "b" * 32, LAYERS, 1),
        ModelEntry("x", "c" * 32, LAYERS, 3),
        ModelEntry("m", "a" * 32, 8, 1),
    )
    assert why(Peer(0, 4), others=others) == (
        "m cannot be used now: no peer serves layers 4:8; "
        "1 peer serves other weights of that name (fingerprint bbbbbbbbbbbb)."
    )


def test_the_same_weights_stored_another_way_are_named() -> None:
    others = (ModelEntry("m-int8", "b" * 32, LAYERS, 8), ModelEntry("m", "c" * 32, LAYERS, 2))
    assert why(others=others, siblings={"b" * 32: "int8", "c" * 32: "none"}) == (
        "m cannot be used now: no peer serves it; "
        "8 peers or more serve these weights in int8 (--quantization int8); "
        "2 peers serve these weights as they are (--quantization none)."
    )


def test_what_a_peer_could_serve_is_what_no_peer_has_promised() -> None:
    assert unserved([Peer(0, 2), loading(2, 4), unreachable(6, 8)], [(2, 8)]) == [(4, 6)]
    assert unserved([loading(0, 8)], [(0, 8)]) == []
