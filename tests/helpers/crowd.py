"""Many peers that share a few real DHT nodes, for tests of large swarms."""

from collections.abc import Sequence

from hivemind.dht.validation import DHTRecord
from hivemind.utils import MSGPackSerializer

from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory
from swarm.network.dht.validator import RecordValidator


class Crowd(RecordValidator):
    """Signs for many identities, so that many peers can share one node."""

    def __init__(self, identities: Sequence[Identity]) -> None:
        super().__init__("test")
        self._signers = {
            identity.peer_id: RecordValidator("test", identity) for identity in identities
        }

    def sign_value(self, record: DHTRecord) -> bytes:
        return self._signers[MSGPackSerializer.loads(record.subkey)].sign_value(record)


def crowd(
    nodes: Sequence[Directory], network: Network, peers: Sequence[Identity]
) -> list[Directory]:
    """Return a directory for each peer over shared nodes, which then sign for all of them."""
    for node in nodes:
        node._node.dht.protocol.record_validator = Crowd(peers)
    return [Directory(peer, network, nodes[i % len(nodes)]._node) for i, peer in enumerate(peers)]
