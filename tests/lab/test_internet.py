"""Real namespaces with real TCP between them.

Times have lower bounds; upper bounds only exclude the absurd.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from lab import probe
from lab.carrier import DEVICE
from lab.internet import NAMESPACES, PREFIX, TESTS, Internet, InternetFailed
from lab.links import Link
from swarm.errors import ConfigError

IMPOSSIBLE = Internet.possible()
pytestmark = pytest.mark.skipif(bool(IMPOSSIBLE), reason=IMPOSSIBLE)

PROBE = [sys.executable, "-I", str(probe.__file__)]
PATIENCE_S = 120.0
HEADERS = 28  # of IP and UDP
SEED = 1  # with it some of the first hundred packets are lost
INTERNET = (
    "import time; from lab.internet import Internet\nwith Internet(2) as i: print(i.carrier.pid);"
    " time.sleep(60)"
)


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def serving(internet: Internet, host: int) -> Iterator[None]:
    with start(internet.inside(host, [*PROBE, "serve"])) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield


def ask(internet: Internet, host: int, *what: object) -> Any:
    """Return the output of a probe inside a host. Raise CalledProcessError if it fails."""
    command = internet.inside(host, [*PROBE, *map(str, what)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return json.loads(done.stdout or "null")


@contextmanager
def running() -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run an internet in a process of its own within the block; yield its carrier's id, too."""
    with subprocess.Popen(
        [sys.executable, "-uc", INTERNET],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as run:
        try:
            assert run.stdout is not None
            yield run, int(run.stdout.readline())
            run.wait(PATIENCE_S)
        finally:
            run.kill()


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def namespaces(pid: int) -> list[str]:
    return [path.name for path in NAMESPACES.glob(f"{PREFIX}-{pid}-*")]


def test_a_round_trip_takes_both_delays() -> None:
    with Internet(2, Link(delay_ms=20)) as internet, serving(internet, 1):
        took = ask(internet, 0, "ping", internet.address(1), 10, 0)
        assert min(took) >= 40
        assert median(took) < 80
        internet.set_link(0, 1, Link(delay_ms=60), both_ways=False)
        assert min(ask(internet, 0, "ping", internet.address(1), 3, 0)) >= 80


def test_every_host_has_a_loopback_of_its_own_and_no_way_out() -> None:
    with Internet(2, Link(delay_ms=1)) as internet, serving(internet, 0), serving(internet, 1):
        for address in ("127.0.0.1", internet.address(1)):
            assert len(ask(internet, 1, "ping", address, 1, 0)) == 1
        with pytest.raises(subprocess.CalledProcessError) as caught:
            ask(internet, 1, "ping", "192.0.2.1", 1, 0)
        assert "unreachable" in caught.value.stderr


def test_a_lossy_link_loses_packets_and_tcp_brings_all_the_same() -> None:
    with Internet(2, Link(delay_ms=5, loss=0.01), SEED) as internet, serving(internet, 1):
        assert ask(internet, 0, "push", internet.address(1), 200_000) > 0.01
        over = internet.statistics()[0, 1]
        assert over.bytes > 200_000
        assert 0 < over.lost < over.packets / 4


def test_a_burst_loses_nothing_that_was_not_asked_for() -> None:
    with Internet(2, Link(delay_ms=10)) as internet, serving(internet, 1):
        ask(internet, 0, "push", internet.address(1), 20_000_000)
        assert internet.statistics()[0, 1].lost == 0
        dropped = internet.inside(0, ["cat", f"/sys/class/net/{DEVICE}/statistics/tx_dropped"])
        assert int(subprocess.check_output(dropped)) == 0


def test_a_cut_link_brings_nothing_until_it_is_restored() -> None:
    with Internet(3, Link(delay_ms=1)) as internet, serving(internet, 1):
        internet.cut(0, 1)
        with pytest.raises(subprocess.CalledProcessError) as caught:
            ask(internet, 0, "ping", internet.address(1), 1, 0)
        assert "timed out" in caught.value.stderr
        over = internet.statistics()
        assert over[0, 1].packets == over[0, 1].lost > 0
        assert over[1, 0].packets == 0
        # the other links are whole
        assert len(ask(internet, 2, "ping", internet.address(1), 1, 0)) == 1
        internet.restore(0, 1)
        assert len(ask(internet, 0, "ping", internet.address(1), 1, 0)) == 1


def test_statistics_count_every_packet_of_every_direction() -> None:
    with Internet(3, Link()) as internet, serving(internet, 1):
        ask(internet, 0, "stream", internet.address(1), 20, 1000)
        internet.cut(0, 1, both_ways=False)
        ask(internet, 0, "stream", internet.address(1), 5, 1000)
        over = internet.statistics()
        assert set(over) == {(a, b) for a in range(3) for b in range(3) if a != b}
        size = probe.DATAGRAM_BYTES + HEADERS
        assert (over[0, 1].packets, over[0, 1].bytes, over[0, 1].lost) == (25, 25 * size, 5)
        assert sum(wire.packets for wire in over.values()) == 25
        assert over[0, 1].worst_late_ms < 1000


def test_bandwidth_holds_a_transfer_back() -> None:
    with Internet(2, Link(delay_ms=5, mbit_per_s=20)) as internet, serving(internet, 1):
        took = ask(internet, 0, "push", internet.address(1), 1_000_000)
        assert 0.4 <= took < 4  # 8 Mbit and their headers
        assert ask(internet, 1, "push", "127.0.0.1", 1_000_000) < took


def test_nothing_remains_afterwards() -> None:
    with Internet(2) as internet:
        carrier = internet.carrier
        assert len(namespaces(os.getpid())) == 2
    assert namespaces(os.getpid()) == []
    assert carrier is not None
    assert carrier.returncode == 0
    with pytest.raises(InternetFailed, match="not entered"):
        internet.statistics()


def test_two_internets_stand_side_by_side() -> None:
    with Internet(1) as one, Internet(1) as other:
        assert one.inside(0, ["true"]) != other.inside(0, ["true"])
        assert len(namespaces(os.getpid())) == 2


def test_a_carrier_that_died_is_reported_and_cleaned_up() -> None:
    with Internet(2) as internet:
        assert internet.carrier is not None
        internet.carrier.kill()
        with pytest.raises(InternetFailed, match="the carrier"):
            internet.statistics()
    assert namespaces(os.getpid()) == []


def test_nothing_remains_of_an_interrupted_run() -> None:
    with running() as (run, carrier):
        os.kill(run.pid, signal.SIGINT)
    assert namespaces(run.pid) == []
    assert "lab.carrier" not in command_line(carrier)


def test_what_a_killed_run_leaves_is_swept_by_the_next() -> None:
    with running() as (run, carrier):
        os.kill(run.pid, signal.SIGKILL)
    assert len(namespaces(run.pid)) == 2
    with Internet(1):
        assert namespaces(run.pid) == []
    deadline = time.monotonic() + PATIENCE_S
    while "lab.carrier" in command_line(carrier):
        assert time.monotonic() < deadline, "the carrier outlives its owner"
        time.sleep(0.01)


def test_a_host_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="hosts: 0 is not"):
        Internet(0)
    with Internet(2) as internet:
        for wrong in (-1, 2):
            with pytest.raises(ConfigError, match=f"host: {wrong} is not one of the 2"):
                internet.address(wrong)
        with pytest.raises(ConfigError, match="loopback"):
            internet.cut(1, 1)
