"""One hivemind DHT node on the running event loop: started, hardened, stopped. Its only process is libp2p's daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hivemind.dht.node import DHTNode
from hivemind.dht.protocol import ValidationError
from hivemind.p2p import P2P, P2PDaemonError, PeerID
from hivemind.utils.multiaddr import Multiaddr

from swarm.config import Network
from swarm.errors import DirectoryDown, NoBootstrap
from swarm.identity import Identity, write_private
from swarm.network.validator import RecordValidator

_RPC_TIMEOUT_S = 3.0  # a DHT request over a slow link, relay included
_STOP_TIMEOUT_S = 3.0  # the daemon ends within milliseconds unless it hangs
_BAN_S = 5.0  # how long searches avoid a node that did not answer


@dataclass
class Node:
    """A running DHT node with its daemon. Whoever starts it calls `stop`."""

    daemon: P2P
    dht: DHTNode
    bootstrap: tuple[str, ...]
    addresses: tuple[str, ...]  # multiaddrs with our peer id, loopback last

    @classmethod
    async def start(
        cls,
        identity: Identity,
        network: Network,
        *,
        host: str,
        port: int,
        bootstrap_node: bool,
        client_mode: bool,
        timeout_s: float,
    ) -> Node:
        """Start the daemon under our identity and enter the DHT through the network's bootstrap nodes.

        Raises NoBootstrap if none of them answers within `timeout_s`, DirectoryDown if the daemon does not run, the
        port is taken or the others refuse us. Leaves no process behind when it fails or is cancelled.
        """
        quiet_hivemind()
        if port and not client_mode:
            _check_port(host, port)
        started: list[P2P] = []

        class Daemon(P2P):  # type: ignore[misc, unused-ignore]
            """hivemind's P2P, known to us before its process exists, so that a start cut short can be cleaned up."""

            def __init__(self) -> None:
                super().__init__()
                started.append(self)

        async def enter() -> tuple[DHTNode, tuple[str, ...]]:
            daemon = await _create_daemon(Daemon, identity, network, host, port, bootstrap_node, client_mode, timeout_s)
            maddrs = [] if client_mode else [str(address) for address in await daemon.get_visible_maddrs()]
            dht = await DHTNode.create(
                p2p=daemon,
                initial_peers=network.bootstrap,
                client_mode=client_mode,
                record_validator=validator,
                wait_timeout=_RPC_TIMEOUT_S,
                bootstrap_timeout=2.5,  # how long silent bootstrap nodes are waited for once one has answered
                num_workers=16,
                blacklist_time=_BAN_S,
                backoff_rate=1.0,  # a node that was down for an hour is welcome as soon as it is back
                # hivemind's caches answer with what was true a while ago; a dead peer must not linger.
                cache_locally=False,
                cache_nearest=0,
                cache_on_store=False,
                cache_refresh_before_expiry=0,
                reuse_get_requests=False,
            )
            return dht, tuple(sorted(maddrs, key=lambda address: "/127.0.0.1/" in address))

        validator = RecordValidator(network.name, identity)
        try:
            dht, addresses = await asyncio.wait_for(enter(), timeout_s)
        except BaseException as error:
            for daemon in started:
                await _stop_daemon(daemon)
            if failure := _explain(error, network.bootstrap):
                raise failure from error
            raise
        _harden(dht, validator)
        return cls(started[0], dht, network.bootstrap, addresses)

    @property
    def neighbours(self) -> int:
        """How many other nodes this one knows."""
        return len(self.dht.protocol.routing_table.uid_to_peer_id)

    def check(self) -> None:
        """Raises DirectoryDown if the daemon is gone. hivemind then keeps quiet and stores records with itself."""
        child = self.daemon._child
        if child is None or child.returncode is not None:
            raise DirectoryDown("libp2p's daemon (p2pd) has ended, so restart this program")

    async def rejoin(self) -> None:
        """Greet the bootstrap nodes again if every other node has been lost, as after their restart.

        hivemind forgets nodes that don't answer and never comes back to them. Succeeds or not in silence: `neighbours`
        tells.
        """
        if self.neighbours or not self.bootstrap:
            return
        await asyncio.gather(*(self._greet(Multiaddr(address)) for address in self.bootstrap))

    async def _greet(self, address: Multiaddr) -> None:
        peer = PeerID.from_base58(address["p2p"])
        node_id = await self.dht.protocol.call_ping(peer)  # answers None on failure, within its own timeout
        if node_id is not None:
            await self.dht.protocol.update_routing_table(node_id, peer)  # call_ping does it too, but later

    async def stop(self) -> None:
        """End the daemon. Safe to call twice, and after a failure."""
        self.dht.is_alive = False
        await _stop_daemon(self.daemon)


def quiet_hivemind() -> None:
    """Show errors of hivemind only: it reports every lost neighbour. HIVEMIND_LOGLEVEL brings the rest back."""
    if "HIVEMIND_LOGLEVEL" not in os.environ:
        logging.getLogger("hivemind").setLevel(logging.ERROR)


def _check_port(host: str, port: int) -> None:
    """Raise DirectoryDown if `port` is taken: the daemon would share it with another daemon and lose half its calls."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former run don't matter
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DirectoryDown(f"cannot listen on {host}:{port} ({error.strerror}), choose another port") from error


async def _create_daemon(
    daemon: type[P2P],
    identity: Identity,
    network: Network,
    host: str,
    port: int,
    bootstrap_node: bool,
    client_mode: bool,
    timeout_s: float,
) -> P2P:
    local = host == "127.0.0.1"
    # The daemon takes its key from a file only. The directory is private (0700) and gone once the daemon runs.
    with tempfile.TemporaryDirectory(prefix="swarm-p2p-") as folder:
        key_file = Path(folder, "key")
        write_private(key_file, identity.libp2p_private_key)
        return await daemon.create(
            initial_peers=network.bootstrap,
            identity_path=str(key_file),
            check_if_identity_free=False,  # that check reads RSA keys only
            host_maddrs=None if client_mode else [f"/ip4/{host}/tcp/{port}"],
            no_listen=client_mode,
            dht_mode="client" if client_mode else "server",
            force_reachability="public" if bootstrap_node and not local else None,
            nat_port_map=not local,  # neither makes sense on loopback, both talk to the local network
            auto_nat=not local,
            startup_timeout=timeout_s,
        )


def _harden(dht: DHTNode, validator: RecordValidator) -> None:
    """Close two holes in hivemind's node that no validator alone can. The tests show the attacks."""
    protocol = dht.protocol
    # One bad record under a key must not hide the good ones.
    protocol._validate_dictionary = validator.sift
    # A node prefers its cache to what it stores, key by key, and strangers may write to the cache: one valid record
    # there would hide all the others. With one storage for both, such a write is an ordinary store.
    protocol.cache = protocol.storage


def _explain(error: BaseException, bootstrap: tuple[str, ...]) -> Exception | None:
    """The error to show instead of this failure to start, None for a programming error or a cancellation."""
    if isinstance(error, asyncio.TimeoutError):
        return NoBootstrap(bootstrap) if bootstrap else DirectoryDown("libp2p's daemon (p2pd) did not start in time")
    if isinstance(error, P2PDaemonError | RuntimeError) and "bootstrap" in str(error):
        return NoBootstrap(bootstrap)
    if isinstance(error, P2PDaemonError | OSError):
        return DirectoryDown(f"libp2p's daemon (p2pd) does not start ({error}), so run `swarm-peer doctor`")
    if isinstance(error, ValidationError):
        return DirectoryDown(f"a bootstrap node refuses this one ({error})")
    return None


async def _stop_daemon(daemon: P2P) -> None:
    child = daemon._child
    if child is None:
        return
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.terminate()  # before the first await: whoever cancels us has ended the daemon all the same
    closing = asyncio.ensure_future(daemon.shutdown())
    done, _ = await asyncio.wait({closing}, timeout=_STOP_TIMEOUT_S)
    if not done:
        with suppress(ProcessLookupError):
            child.kill()
        await asyncio.wait({closing}, timeout=_STOP_TIMEOUT_S)
