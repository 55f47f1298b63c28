"""libp2p's daemon: a process of its own, in its own session, which is always ended."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.message import Message
from hivemind.dht.protocol import ValidationError
from hivemind.p2p import P2P, P2PContext, P2PDaemonError, PeerID

from swarm.config import Network
from swarm.errors import CannotListen, DirectoryDown, NoBootstrap
from swarm.identity import Identity, write_private
from swarm.network.dht.own_process_group import in_own_session
from swarm.network.dht.rpc_auth import RpcCall
from swarm.network.dht.rpc_gater import RpcGater
from swarm.util.tasks import end, within

# Starting has two parts, each with a limit of its own. Until the process listens, only this
# computer can keep us waiting, and one whose processors are all busy takes a hundred times as long
# as a quiet one. Then others have to answer.
START_TIMEOUT_S = 90.0  # 0.2 s on a quiet computer; a process that fails ends at once
ANSWER_TIMEOUT_S = 15.0  # of a bootstrap node; one that is not there refuses at once, as a rule
_STOP_TIMEOUT_S = 3.0  # the daemon ends within milliseconds unless it hangs
_LOOK_S = 0.02  # between two looks whether the process listens: the first thing it says comes later
# What a bootstrap node lends to peers that cannot be dialled. A place costs nothing while it is not
# used. A link through a relay that meets a limit is cut; its user takes that for a failure and
# repairs it.
RELAY_LIMITS = {
    "relayMaxReservations": 256,  # places
    "relayMaxCircuits": 64,  # links at a time to one place
    "relayDataLimit": 4 << 30,  # bytes each way over one link: an hour at 10 Mbit/s
    "relayTimeLimit": "2h",
    "relayBufferSize": 256 << 10,  # bytes each way and link; libp2p's daemon would take 16 MiB
}


async def start_daemon(
    identity: Identity,
    network: Network,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    bootstrap_node: bool = False,
    client_mode: bool = False,
    relays: tuple[str, ...] = (),
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> P2P:
    """Start a daemon that listens on `host`:`port` (0: any port), or not at all in `client_mode`.

    A bootstrap node relays for others. With `relays` (multiaddrs) the daemon asks these nodes for a
    place.

    Raises NoBootstrap if none of the network's bootstrap nodes answers within `timeout_s`, counted
    from when the daemon listens, DirectoryDown if the daemon does not run, CannotListen if the port
    is taken. Leaves no process behind when it fails or is cancelled.
    """
    quiet_hivemind()
    if port and not client_mode:
        _check_port(host, port)
    local = host == "127.0.0.1"

    class Daemon(_GatedDaemon):
        gate = RpcGater(network)
        started: ClassVar[list[P2P]] = []
        settings: ClassVar[dict[str, object]] = _relay_settings(bootstrap_node)

    try:
        # The daemon takes its key from a file only. The directory is private (0700) and gone once
        # the daemon runs.
        with tempfile.TemporaryDirectory(prefix="swarm-p2p-") as folder:
            key_file = Path(folder, "key")
            write_private(key_file, identity.libp2p_private_key)
            creating = Daemon.create(
                initial_peers=network.bootstrap,
                identity_path=str(key_file),
                check_if_identity_free=False,  # that check reads RSA keys only
                host_maddrs=None if client_mode else [f"/ip4/{host}/tcp/{port}"],
                no_listen=client_mode,
                dht_mode="client" if client_mode else "server",
                force_reachability="public" if bootstrap_node else "private" if relays else None,
                use_auto_relay=bool(relays),
                trusted_relays=relays,
                # neither makes sense on loopback, both talk to the local network
                nat_port_map=not local,
                auto_nat=not local,
                startup_timeout=2 * START_TIMEOUT_S + timeout_s,  # ours say what was waited for
            )
            return await _created(creating, Daemon.started, timeout_s)
    except BaseException as error:
        for daemon in Daemon.started:
            await stop_daemon(daemon)
        if failure := explain(error, network.bootstrap):
            raise failure from error
        raise


class _GatedDaemon(P2P):  # type: ignore[misc, unused-ignore]
    """hivemind's P2P, all of whose calls go through a gater.

    hivemind's `create` calls the class without arguments, so each daemon gets a class of its own.

    Attributes:
        gate: checks every call.
        started: the daemons of this class, each from before its process exists, so that a start
            that is cut short can be cleaned up.
        settings: of libp2p's daemon, beside those that `create` takes.
    """

    gate: RpcGater
    started: ClassVar[list[P2P]]
    settings: ClassVar[dict[str, object]]

    def __init__(self) -> None:
        super().__init__()
        self.started.append(self)

    async def _add_protobuf_unary_handler(
        self,
        handle_name: str,
        handler: Callable[..., Awaitable[Message]],
        kind: type[Message],
        balanced: bool = False,
    ) -> None:
        async def answer(request: bytes, remote_id: PeerID) -> bytes:
            call = RpcCall(handle_name, remote_id.to_base58(), self.peer_id.to_base58())
            context = P2PContext(
                handle_name=handle_name, local_id=self.peer_id, remote_id=remote_id
            )
            return await self.gate.answer(
                call, request, kind.FromString, lambda message: handler(message, context)
            )

        await self._client.add_unary_handler(handle_name, answer, balanced=balanced)

    async def _call_unary_protobuf_handler(
        self, peer_id: PeerID, handle_name: str, message: Message, kind: type[Message]
    ) -> Message:
        call = RpcCall(handle_name, self.peer_id.to_base58(), peer_id.to_base58())
        send = functools.partial(self._client.call_unary_handler, peer_id, handle_name)
        answer: Message = await self.gate.ask(call, message, send, kind.FromString)
        return answer

    @classmethod
    def _make_process_args(cls, *args: object, **kwargs: object) -> list[str]:
        made: list[str] = P2P._make_process_args(*args, **kwargs, **cls.settings)
        # signals to our group are for us, who end the daemon after its last use
        return in_own_session(made)


def _relay_settings(lends: bool) -> dict[str, object]:
    # Without discovery a daemon asks the relays that it is given at once, else it looks around for
    # 15 s and more.
    settings: dict[str, object] = {"relayDiscovery": 0, "relayService": int(lends)}
    return settings | RELAY_LIMITS if lends else settings


async def _created(
    creating: Coroutine[Any, Any, P2P], started: Sequence[P2P], timeout_s: float
) -> P2P:
    """Return the daemon once it runs and has entered."""
    task = asyncio.create_task(creating)
    try:
        await _wait_until_listening(task, started)
        daemon = await within(timeout_s, task)
        control = daemon._client.control
        control._pending_calls = PendingCalls(control._pending_calls)
        return daemon
    finally:
        await end(task)


class PendingCalls(dict[Any, "asyncio.Future[Any]"]):
    """hivemind's calls that wait for an answer, without those that were given up.

    hivemind gives a late answer to a call that was cancelled in the same turn of the event loop.
    That raises in the task that reads all answers, and no call is answered any more.
    """

    def __contains__(self, call: object) -> bool:
        future = self.get(call)
        return future is not None and not future.done()


async def _wait_until_listening(creating: asyncio.Task[P2P], started: Sequence[P2P]) -> None:
    """Wait until the daemon's process has opened its socket, or has ended.

    Raises DirectoryDown when that takes too long.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not creating.done() and not any(map(_listens, started)):
        if time.monotonic() > deadline_s:
            raise DirectoryDown(
                f"libp2p's daemon (p2pd) does not listen {START_TIMEOUT_S:.0f} s after its start: "
                "this computer may have too much to do, so end other programs or try again later"
            )
        await asyncio.wait({creating}, timeout=_LOOK_S)


def _listens(daemon: P2P) -> bool:
    """Return whether its process has opened the socket through which we control it."""
    return os.path.exists(daemon._daemon_listen_maddr["unix"])


async def stop_daemon(daemon: P2P) -> None:
    """End the process, by force if it hangs. Safe to call twice, and on one that never started."""
    # so that hivemind does not signal it as well, see `_signal`
    child, daemon._child = daemon._child, None
    if child is None:
        return
    # before the first await, so that the daemon ends even if we are cancelled
    _signal(child, signal.SIGTERM)
    # of the tasks and sockets on our side, so that the daemon's last complaints are not shown
    await daemon.shutdown()
    try:
        await within(_STOP_TIMEOUT_S, child.wait())
    except asyncio.TimeoutError:
        _signal(child, signal.SIGKILL)
        # no more can be done about a process that outlives that
        with suppress(asyncio.TimeoutError):
            await within(_STOP_TIMEOUT_S, child.wait())


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a child, but not by `child.send_signal`.

    That polls the process and so takes its exit from asyncio, whose watcher then warns about an
    "unknown child process" on the terminal.
    """
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)


def explain(error: BaseException, bootstrap: tuple[str, ...]) -> Exception | None:
    """The error to show instead of this failure to start, None for a programming error or a
    cancellation."""
    if isinstance(error, asyncio.TimeoutError):
        return (
            NoBootstrap(bootstrap)
            if bootstrap
            else DirectoryDown("libp2p's daemon (p2pd) listens and says nothing")
        )
    if isinstance(error, P2PDaemonError | RuntimeError) and "bootstrap" in str(error):
        return NoBootstrap(bootstrap)
    if isinstance(error, P2PDaemonError | OSError):
        return DirectoryDown(
            f"libp2p's daemon (p2pd) does not start ({error}), so run `swarm-peer doctor`"
        )
    if isinstance(error, ValidationError):
        return DirectoryDown(f"a bootstrap node refuses this one ({error})")
    return None


def quiet_hivemind() -> None:
    """Show errors of hivemind only: it reports every lost neighbour.

    HIVEMIND_LOGLEVEL brings the rest back.
    """
    if "HIVEMIND_LOGLEVEL" not in os.environ:
        logging.getLogger("hivemind").setLevel(logging.ERROR)


def _check_port(host: str, port: int) -> None:
    """Raise CannotListen if `port` is taken: the daemon would share it with another daemon and lose
    half its calls."""
    with socket.socket() as probe:
        # connections of a former run don't matter
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotListen(host, port, error.strerror or str(error)) from error
