"""The packets that a router lets in: one by one, and of real TCP between hosts."""

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab import nat, probe
from lab.internet import Internet
from lab.links import Link
from lab.nat import TCP, UDP, Nat

INSIDE, OUTSIDE = "10.77.0.1", "10.77.0.2"
PROBE = [sys.executable, "-I", str(probe.__file__)]
IMPOSSIBLE = Internet.possible()
needs_internet = pytest.mark.skipif(bool(IMPOSSIBLE), reason=IMPOSSIBLE)


def packet(source: str, sport: int, destination: str, dport: int, protocol: int = TCP) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = bytes([0x45]) + bytes(8) + bytes([protocol]) + bytes(2) + addresses
    return header + struct.pack(">HH", sport, dport)


def test_only_answers_come_in() -> None:
    router = Nat()
    assert not router.lets_in(packet(OUTSIDE, 80, INSIDE, 5000))
    router.goes_out(packet(INSIDE, 5000, OUTSIDE, 80))
    assert router.lets_in(packet(OUTSIDE, 80, INSIDE, 5000))
    assert not router.lets_in(packet(OUTSIDE, 81, INSIDE, 5000))
    assert not router.lets_in(packet(OUTSIDE, 80, INSIDE, 5001))
    assert not router.lets_in(packet("10.77.0.3", 80, INSIDE, 5000))
    assert not router.lets_in(packet(OUTSIDE, 80, INSIDE, 5000, UDP))


def test_the_oldest_flows_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nat, "MAX_FLOWS", 2)
    router = Nat()
    for port in (1, 2, 1, 3):
        router.goes_out(packet(INSIDE, port, OUTSIDE, 80))
    assert [router.lets_in(packet(OUTSIDE, 80, INSIDE, port)) for port in (1, 2, 3)] == [
        True,
        False,
        True,
    ]


@needs_internet
def test_a_hidden_host_dials_out_and_is_not_dialled_until_it_is_opened() -> None:
    with Internet(2, Link(delay_ms=1)) as internet, serving(internet, 0), serving(internet, 1):
        internet.hide(0)
        with pytest.raises(subprocess.CalledProcessError) as caught:
            ping(internet, 1, 0)
        assert "timed out" in caught.value.stderr
        assert len(ping(internet, 0, 1)) == 1
        internet.open(0)
        assert len(ping(internet, 1, 0)) == 1


@contextmanager
def serving(internet: Internet, host: int) -> Iterator[None]:
    command = internet.inside(host, [*PROBE, "serve"])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield


def ping(internet: Internet, source: int, destination: int) -> Any:
    command = internet.inside(source, [*PROBE, "ping", internet.address(destination), "1", "0"])
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    )
