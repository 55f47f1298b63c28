"""Valid records of peers, for tests of the directory and of routes."""

from typing import Any

from swarm.network.dht.records import PeerRecord


def peer_record(peer_id: str, /, **changes: Any) -> PeerRecord:
    """Return a valid record of a peer, with some fields changed."""
    fields: dict[str, Any] = {
        "peer_id": peer_id,
        "network": "test",
        "model": "demo",
        "fingerprint": "0" * 32,
        "model_layers": 8,
        "first_layer": 0,
        "last_layer": 4,
        "dtype": "float32",
        "addresses": ("127.0.0.1:9000",),
        "certificate": "a" * 64,
        "tokens_per_second": 1.0,
        "free_cache_tokens": 1,
        "state": "online",
        "software": "0",
        "protocol": 1,
    }
    return PeerRecord.model_validate(fields | changes)
