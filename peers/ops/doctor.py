"""Checks whether this computer can serve.

Each check finds a fact and, where something is wrong, says what to do.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from peers.access.listener import listening
from peers.access.reachability import Reachability, judge, own_address
from swarm.client.connect import connect
from swarm.client.incomplete import unserved
from swarm.client.status import ModelStatus, look
from swarm.config import Network
from swarm.errors import CannotListen, NoBootstrap, SwarmError
from swarm.identity import Identity
from swarm.model.device import NoSuchDevice, choose_device
from swarm.network.dht.clock_check import clock_skew_s
from swarm.network.dht.clock_skew import MAX_SKEW_S
from swarm.network.dht.directory import Directory
from swarm.network.links.handshake import HandshakeLimiter
from swarm.network.links.link import Link
from swarm.network.nat.dialback import DialRequest
from swarm.network.nat.relay import Relay
from swarm.util.tasks import within
from swarm.wire.handshake import LocalMember

MAX_BROKEN = 3  # models for which the report says why they cannot be used
CHECK_TIMEOUT_S = 120.0  # each check bounds its own steps; this bounds everything else


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        remedy: what to do; "" if all is well.
        advice: what could be better; "" for nothing.
    """

    subject: str
    fact: str
    remedy: str = ""
    advice: str = ""


async def examine(
    load: Callable[[], Network],
    port: int,
    announce: str | None = None,
    key_file: Path | None = None,
) -> list[Finding]:
    """Run all checks, in the order in which an operator would put things right.

    Args:
        load: returns the network. Raises SwarmError if it is not known.
        port: that a peer would listen on; 0 for any.
        announce: "host:port" that a peer would announce; None for the one that it sees.
        key_file: of the peer that would serve here; None for a new key. It is used only where a
            list of members lets nobody else in.
    """
    findings = [await _bounded("libp2p", _daemon()), check_device(), check_port(port)]
    try:
        net = load()
        if not net.bootstrap:
            raise NoBootstrap()
    except SwarmError as error:
        return [
            *findings,
            Finding("clock", "not compared with others"),
            Finding("network", "not known", str(error)),
        ]
    return [
        *findings,
        await _bounded("clock", _clock(net)),
        await _bounded("network", _network(net, key_file)),
        await _bounded("models", _models(net, key_file)),
        await _bounded("reach", _reach(net, port, announce)),
    ]


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing has to be done."""
    return not any(finding.remedy for finding in findings)


def show(findings: Sequence[Finding]) -> None:
    """Print the findings."""
    for finding in findings:
        mark = (
            click.style("ok  ", fg="green") if not finding.remedy else click.style("FAIL", fg="red")
        )
        click.echo(f"{mark}  {finding.subject:<8} {finding.fact}")
        if finding.remedy or finding.advice:
            click.echo(f"      {'':<8} -> {finding.remedy or finding.advice}")


async def _bounded(subject: str, check: Awaitable[Finding]) -> Finding:
    """Run one check; if it fails or hangs, that is its finding."""
    try:
        return await within(CHECK_TIMEOUT_S, check)
    except asyncio.TimeoutError:
        return Finding(
            subject, f"no answer in {CHECK_TIMEOUT_S:g} s", "end other programs, and try again"
        )
    except SwarmError as error:
        return Finding(subject, "does not work", str(error))


async def _daemon() -> Finding:
    """Run libp2p's daemon, which comes with hivemind's wheel, for a moment."""
    started = time.monotonic()
    try:
        async with await Directory.join(
            Identity.generate(), Network("doctor"), bootstrap_node=True
        ):
            return Finding(
                "libp2p", f"the daemon (p2pd) runs, started in {time.monotonic() - started:.1f} s"
            )
    except SwarmError as error:
        remedy = (
            "reinstall it (pip install --force-reinstall hivemind); it needs Linux or macOS, and"
            " may need chmod +x"
        )
        return Finding("libp2p", str(error), remedy)


def check_device(name: str = "auto") -> Finding:
    """Check the device that ``swarm-peer join`` would compute on."""
    import torch

    threads = f"{torch.get_num_threads()} CPU threads"
    try:
        device = choose_device(name)
    except NoSuchDevice as error:
        return Finding("device", error.why, "update the GPU's driver, or serve with --device cpu")
    if device.type == "cpu":
        return Finding(
            "device",
            f"no GPU that torch {torch.__version__} can use, {threads}: slow, but it works",
        )
    if device.type != "cuda":
        return Finding("device", f"{device.type}; {threads}")
    free, total = torch.cuda.mem_get_info()
    memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return Finding("device", f"{torch.cuda.get_device_name()}, {memory}; {threads}")


def check_port(port: int) -> Finding:
    """Check whether this port is free on all addresses of this computer."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
            probe.listen(1)
        except OSError as error:
            return Finding(
                "port",
                f"{port}: {error.strerror}",
                "end the program that holds it, or give another --port",
            )
    return Finding(
        "port", f"{port} can be listened on" if port else "any free port can be listened on"
    )


async def _clock(network: Network) -> Finding:
    try:
        return clock_finding(await clock_skew_s(network))
    except NoBootstrap:
        return Finding(
            "clock", "not compared with others, because no bootstrap node tells its time"
        )


def clock_finding(skew_s: float) -> Finding:
    """Judge a clock skew; positive if our clock is ahead."""
    fact = f"{abs(skew_s):.2f} s {'ahead of' if skew_s > 0 else 'behind'} the bootstrap nodes"
    if abs(skew_s) <= MAX_SKEW_S:
        return Finding("clock", fact)
    return Finding(
        "clock",
        fact,
        "set the clock, for example by `sudo timedatectl set-ntp true`: others refuse us",
    )


def _identity(network: Network, key_file: Path | None) -> Identity:
    """Return who enters the network: a stranger, unless a list of members lets in only members.

    Raises:
        ConfigError: if the list does not name this computer's peer.
        IdentityError: if its key file cannot be used.
    """
    if network.members is None or key_file is None:
        return Identity.generate()  # which a peer that runs here already does not prevent
    identity = Identity.load_or_create(key_file)
    network.check_member(identity.peer_id)
    return identity


async def _network(network: Network, key_file: Path | None) -> Finding:
    started = time.monotonic()
    async with connect(LocalMember(_identity(network, key_file), network)) as swarm:
        took_s = time.monotonic() - started
        models = await swarm.directory.models()
    served = ", ".join(f"{m.model} by {m.crowd}" for m in models[:10]) or "no model yet"
    return Finding("network", f"{network.name} entered in {took_s:.1f} s; it serves {served}")


async def _models(network: Network, key_file: Path | None) -> Finding:
    """Find which models can be used, and why the others cannot.

    A model that cannot be used is no fault of this computer, but a peer here may help.
    """
    reports = await look(network, identity=_identity(network, key_file))
    broken = [report for report in reports if report.why]
    if not broken:
        fact = f"all layers of {len(reports)} can be used" if reports else "none is served yet"
        return Finding("models", fact)
    advice = next((advice for report in broken if (advice := _help(report))), "")
    return Finding("models", " ".join(report.why for report in broken[:MAX_BROKEN]), advice=advice)


def _help(report: ModelStatus) -> str:
    """Return what a peer here could do for a model."""
    spans = unserved(report.peers, report.missing)
    if not spans:
        return ""
    first, last = spans[0]
    return f"to serve them here: swarm-peer join {report.model} --layers {first}:{last}"


async def _reach(network: Network, port: int, announce: str | None) -> Finding:
    """Listen for a moment, as a peer would, and ask the bootstrap nodes to dial back."""
    identity = Identity.generate()
    try:
        async with listening(
            HandshakeLimiter(LocalMember(identity, network)), "0.0.0.0", port, _say_nothing
        ) as listened:
            address = announce or own_address("0.0.0.0", listened)
            question = DialRequest(
                address=address,
                certificate=identity.certificate_fingerprint,
                exact=announce is not None,
            )
            relay = await Relay.start(network)
            try:
                return reach_finding(judge(await relay.ask(question), address), address)
            finally:
                await relay.stop()
    except CannotListen as error:
        return Finding("reach", "not tried", str(error))


def reach_finding(verdict: Reachability, address: str) -> Finding:
    """Judge the reachability of a peer that would announce ``address``."""
    port = address.rpartition(":")[2]
    if not verdict.verified:
        seen = f"; this computer is seen at {', '.join(verdict.seen)}" if verdict.seen else ""
        return Finding(
            "reach",
            f"no bootstrap node tried to dial {address}{seen}: it would be announced unverified",
        )
    if verdict.direct and verdict.whole:
        return Finding("reach", f"others get through to {' and '.join(verdict.direct)}")
    who = (
        f"only some get through to {' and '.join(verdict.direct)}"
        if verdict.direct
        else "no other node gets through"
    )
    where = f" (seen at {', '.join(verdict.seen)})" if verdict.seen else ""
    return Finding(
        "reach",
        f"{who}{where}: a peer here comes in through a relay, which works and costs one more hop",
        advice=(
            f"to be dialled directly, forward TCP port {port} on the router to this computer and"
            f" join with --port {port}; where the way in has another address, name it with"
            " --announce HOST:PORT"
        ),
    )


async def _say_nothing(link: Link) -> None:
    async for _ in link:
        pass
