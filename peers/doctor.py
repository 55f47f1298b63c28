"""Can this computer serve? Each check finds a fact and, where something is wrong, says what to do."""

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import click

from swarm.config import Network, load_network
from swarm.errors import SwarmError
from swarm.identity import Identity

MAX_SKEW_S = 3.0  # records live for a minute: a clock that is wrong by seconds still works, by minutes it does not
SKEW_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Finding:
    """What one check found; ``remedy`` says what to do and is empty if all is well."""

    subject: str
    fact: str
    remedy: str = ""


async def examine(bootstrap: Sequence[str], network: str | None, port: int) -> list[Finding]:
    """All checks, in the order in which an operator would put things right."""
    findings = [_daemon(), _device(), _port(port), _clock()]
    try:
        findings.append(await _dht(load_network(bootstrap=bootstrap, name=network)))
    except SwarmError as error:
        findings.append(Finding("network", "not reachable", str(error)))
    return findings


def show(findings: Sequence[Finding]) -> bool:
    """Print the findings; True if nothing has to be done."""
    for finding in findings:
        mark = click.style("ok  ", fg="green") if not finding.remedy else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {finding.subject:<8} {finding.fact}")
        if finding.remedy:
            click.echo(f"      {'':<8} -> {finding.remedy}")
    return not any(finding.remedy for finding in findings)


def _daemon() -> Finding:
    """hivemind talks libp2p through a program that its wheel carries."""
    path = files("hivemind").joinpath("hivemind_cli", "p2pd")
    if not path.is_file():
        return Finding("libp2p", "the p2pd program is missing", "reinstall: pip install --force-reinstall hivemind")
    if not os.access(str(path), os.X_OK):
        return Finding("libp2p", "the p2pd program may not be executed", f"chmod +x {path}")
    return Finding("libp2p", f"{path}")


def _device() -> Finding:
    import torch

    threads = f"{torch.get_num_threads()} CPU threads"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Finding("device", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free; {threads}")
    return Finding("device", f"no GPU that torch {torch.__version__} can use, {threads}: slow, but it works")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            return Finding("port", f"{port}: {error.strerror}", "end the program that holds it, or give another --port")
    return Finding("port", f"{port} can be listened on" if port else "any free port can be listened on")


def _clock() -> Finding:
    """Against the wall clock's own history: hours are compared with others in the DHT check."""
    year = time.gmtime().tm_year
    if year < 2025:
        return Finding("clock", f"it says {year}", "set the clock, for example by enabling NTP")
    return Finding("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


async def _dht(network: Network) -> Finding:
    """Enter the network as a client; the DHT itself refuses those whose clock is off."""
    from swarm.network.directory import Directory

    started = time.monotonic()
    async with await asyncio.wait_for(
        Directory.join(Identity.generate(), network, client_mode=True), SKEW_TIMEOUT_S + 3
    ) as directory:
        models = await directory.models()
    took = time.monotonic() - started
    served = ", ".join(f"{m.model} by {m.peers} peers" for m in models) or "no model yet"
    return Finding("network", f"{network.name} entered in {took:.1f} s; it serves {served}")
