"""Many peers that share a few real nodes, for the tests of what a large swarm looks like."""

from collections.abc import Sequence

from hivemind.dht.validation import DHTRecord
from hivemind.utils import MSGPackSerializer

from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory
from swarm.network.dht.validator import RecordValidator


class Crowd(RecordValidator):
    """Signs for many identities, so that few nodes can be used by many peers."""

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
    """A directory for each of the peers, over the nodes of others, who from now on sign for all of
    them."""
    for node in nodes:
        node._node.dht.protocol.record_validator = Crowd(peers)
    return [Directory(peer, network, nodes[i % len(nodes)]._node) for i, peer in enumerate(peers)]
