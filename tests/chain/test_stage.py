"""A stage's peer: how the peer before reaches it, and that a goodbye to it never fails."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.loopback import soon
from helpers.records import peer_record
from swarm.chain import stage as module
from swarm.chain.stage import ChainLink, take_leave
from swarm.identity import Identity
from swarm.network.links.link import LinkClosed
from swarm.routing.chain import Stage
from swarm.wire.messages import Close

PEER = Identity.generate().peer_id


def test_a_peer_is_reached_at_the_address_at_which_it_answered_us() -> None:
    record = peer_record(PEER, addresses=("10.0.0.1:9000", "192.0.2.1:9000"))
    connection: Any = SimpleNamespace(link=SimpleNamespace(address="192.0.2.1:9000"))
    link = ChainLink(Stage(PEER, 1, 3), record, connection)
    assert (link.peer_id, link.layers) == (PEER, (1, 3))
    hop = link.hop
    assert (hop.peer_id, hop.address) == (PEER, "192.0.2.1:9000")
    assert hop.certificate == record.certificate


class Connection:
    """Takes messages, hangs, or is closed."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.sent: list[Any] = []
        self.cancelled = False

    async def send(self, message: Any) -> int:
        if self.way == "closed":
            raise LinkClosed("192.0.2.1:9000", "closed")
        if self.way == "hangs":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True
        self.sent.append(message)
        return 0


@pytest.mark.parametrize("way", ["open", "closed", "hangs"])
async def test_a_goodbye_never_fails_and_never_waits_long(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GOODBYE_TIMEOUT_S", 0.01)
    connection, goodbye = Connection(way), Close(session=bytes(16))
    await soon(take_leave(connection, goodbye))  # type: ignore[arg-type]
    assert connection.sent == ([goodbye] if way == "open" else [])
    assert connection.cancelled == (way == "hangs")
