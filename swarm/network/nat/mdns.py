"""Finding a swarm on the local network, without any address: bootstrap nodes are announced by
multicast DNS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from swarm.config import MAX_BOOTSTRAP_NODES, Network
from swarm.errors import ConfigError, NetworkUnreachable
from swarm.util.tasks import within

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncZeroconf

SERVICE = "_swarm-boot._tcp.local."
FIND_S = 3.0  # a node on the same network answers the first or the second question, a second later
ASK_TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 3.0
MAX_ADDRESSES = 4  # of one node
MAX_ADDRESS_BYTES = 240  # of one of these: an entry of a TXT record has 255, its name included

log = logging.getLogger(__name__)


@dataclass(eq=False)
class NoLan(NetworkUnreachable):
    """Multicast DNS cannot be used."""

    why: str

    def __str__(self) -> str:
        return (
            f"The local network cannot be searched for a swarm ({self.why}); name a node with"
            " --bootstrap."
        )


@contextlib.asynccontextmanager
async def announced(
    network: str, addresses: Sequence[str], interfaces: Sequence[str] = ()
) -> AsyncIterator[None]:
    """Announce a bootstrap node on the local network while the block lasts.

    Args:
        network: the swarm network's name.
        addresses: multiaddrs of the node, best first. Loopback is announced only if there is
            nothing else, and none with more than `MAX_ADDRESS_BYTES`.
        interfaces: our addresses to speak from; all by default.

    Raises:
        NoLan: if multicast DNS does not work here, or no address is left to tell.
    """
    short = [each for each in addresses if len(each.encode()) <= MAX_ADDRESS_BYTES]
    told = [each for each in short if "/127.0.0.1/" not in each] or short
    if not told:
        raise NoLan(f"none of its addresses has {MAX_ADDRESS_BYTES} bytes or less")
    peer_id, port = told[0].rpartition("/")[2], int(told[0].split("/")[4])
    properties = {
        "network": network,
        **{f"a{i}": address for i, address in enumerate(told[:MAX_ADDRESSES])},
    }
    library = _library()
    info = library.AsyncServiceInfo(
        SERVICE,
        f"{peer_id}.{SERVICE}",
        port=port,
        properties=properties,
        server=f"{peer_id}.local.",
        parsed_addresses=[
            each.split("/")[2] for each in told[:MAX_ADDRESSES] if _is_ip(each.split("/")[2])
        ],
    )
    async with _multicast(interfaces) as zeroconf:
        try:
            await zeroconf.async_register_service(info)
        except OSError as error:
            raise NoLan(str(error)) from error
        try:
            yield
        finally:
            with contextlib.suppress(asyncio.TimeoutError, OSError):
                await within(STOP_TIMEOUT_S, zeroconf.async_unregister_service(info))


async def find(
    network: str, timeout_s: float = FIND_S, interfaces: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return multiaddrs of bootstrap nodes of a swarm network that announce themselves.

    Anything else that is announced is left out.

    Raises:
        NoLan: if multicast DNS does not work here.
    """
    library = _library()
    names: dict[str, None] = {}

    def note(name: str, **_: object) -> None:
        if len(names) < MAX_BOOTSTRAP_NODES:
            names[name] = None

    async with _multicast(interfaces) as zeroconf:
        browser = library.AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[note])
        await asyncio.sleep(timeout_s)
        await browser.async_cancel()
        infos = [library.AsyncServiceInfo(SERVICE, name) for name in names]
        await asyncio.gather(
            *(info.async_request(zeroconf.zeroconf, ASK_TIMEOUT_S * 1e3) for info in infos)
        )
    found = (address for info in infos for address in _addresses(info.decoded_properties, network))
    return tuple(dict.fromkeys(found))[:MAX_BOOTSTRAP_NODES]


def search(network: Network) -> Network:
    """Return the network with the bootstrap nodes that are found nearby added; block for `FIND_S`.

    Raises NoLan.
    """
    found = asyncio.run(find(network.name))
    return replace(
        network, bootstrap=tuple(dict.fromkeys((*network.bootstrap, *found)))[:MAX_BOOTSTRAP_NODES]
    )


def _addresses(properties: dict[str, str | None], network: str) -> list[str]:
    """Return the valid addresses that a computer on the local network announces."""
    if properties.get("network") != network:
        return []
    addresses: list[str] = []
    for i in range(MAX_ADDRESSES):
        address = properties.get(f"a{i}")
        if address and len(address.encode()) <= MAX_ADDRESS_BYTES:
            with contextlib.suppress(ConfigError):
                addresses += Network(network, (address,)).bootstrap
    return addresses


@contextlib.asynccontextmanager
async def _multicast(interfaces: Sequence[str]) -> AsyncIterator[AsyncZeroconf]:
    try:
        zeroconf = _library().AsyncZeroconf(
            **({"interfaces": list(interfaces)} if interfaces else {})
        )
    except OSError as error:
        raise NoLan(str(error)) from error
    try:
        yield zeroconf
    finally:
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            await within(STOP_TIMEOUT_S, zeroconf.async_close())


def _library() -> Any:
    """zeroconf, which comes with the extra `lan` only. Raises NoLan."""
    try:
        from zeroconf import asyncio as library
    except ImportError as error:
        raise NoLan("the package zeroconf is missing: pip install 'swarm[lan]'") from error
    return library


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
