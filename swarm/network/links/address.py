"""The two forms of a peer's address: direct, ``host:port``, and at a relay.

A relayed address is the relay's own, then ``/p2p-circuit``, then the libp2p id of the peer::

    /ip4/203.0.113.5/tcp/31337/p2p/12D3KooWRelay.../p2p-circuit/p2p/12D3KooWPeer...

That id is to a relayed link what the certificate is to a direct one: libp2p's handshake proves it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from swarm.config import check_multiaddr
from swarm.errors import ConfigError, IdentityError
from swarm.identity import public_key_of
from swarm.wire.fields import MAX_ADDRESS

_CIRCUIT = "/p2p-circuit"
_HOST_PORT = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):([1-9][0-9]{0,4})"
)


@dataclass(frozen=True)
class RelayedAddress:
    """An address at a relay: the relay's multiaddr, and the libp2p id of the peer behind it."""

    relay: str
    peer_id: str

    @classmethod
    def parse(cls, address: str) -> RelayedAddress:
        """Parse a relayed address. Raises ValueError if it is not one."""
        relay, circuit, peer_id = address.partition(f"{_CIRCUIT}/p2p/")
        try:
            check_multiaddr(relay)
            public_key_of(peer_id)
        except (ConfigError, IdentityError):
            circuit = ""
        if not circuit or len(address) > MAX_ADDRESS:
            raise ValueError(f"{address[:MAX_ADDRESS]!r} is no place at a relay")
        return cls(relay, peer_id)

    @property
    def circuit(self) -> str:
        """The multiaddr that libp2p dials."""
        return self.relay + _CIRCUIT

    def __str__(self) -> str:
        return f"{self.circuit}/p2p/{self.peer_id}"


def is_relayed(address: str) -> bool:
    """Return whether an address that has one of the two forms is a relayed one."""
    return address.startswith("/")


def check_address(address: str) -> None:
    """Raise ValueError if the address has neither form."""
    if is_relayed(address):
        RelayedAddress.parse(address)
        return
    match = _HOST_PORT.fullmatch(address)
    if not match or int(match[1]) > 65535 or len(address) > MAX_ADDRESS:
        raise ValueError(f"{address!r} is not host:port")


def split(address: str) -> tuple[str, int]:
    """Return host (IPv6 without brackets) and port of a direct address.

    Raises ValueError for any other.
    """
    if is_relayed(address):
        raise ValueError(f"{address!r} is not host:port")
    check_address(address)
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def join(host: str, port: int) -> str:
    """Return the direct address of a host and port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
