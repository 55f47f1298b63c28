"""The fidelity of the emulated internet, and its cost. Prints figures; nothing is asserted.

    python tests/lab/internet_cost.py

Round trips are those of processes, so that on a loaded machine they include the processes' own
waits for a core. The lateness of the carrier itself is printed separately.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import probe
from lab.internet import Internet, congestion_control
from lab.links import Link

DELAY_MS, PINGS, PAUSE_S = 20, 200, 0.005
STREAM, A_SECOND = 2000, 500
MUCH, LITTLE = 50_000_000, 2_000_000  # bytes; the latter where one packet in a hundred is lost
PROBE = [sys.executable, "-I", str(probe.__file__)]
TICKS = os.sysconf("SC_CLK_TCK")


def ask(internet: Internet, *what: object) -> str:
    command = internet.inside(0, [*PROBE, *map(str, what)])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def measured(internet: Internet, what: str) -> Iterator[None]:
    """Print the share of a core that the carrier takes within the block."""
    assert internet.carrier is not None
    clock = Path(f"/proc/{internet.carrier.pid}/stat")

    def used_s() -> float:
        return sum(map(int, clock.read_text().rpartition(")")[2].split()[11:13])) / TICKS

    used, started = used_s(), time.perf_counter()
    yield
    print(f"carrier, {what}: {(used_s() - used) / (time.perf_counter() - started):.1%} of a core")


@contextmanager
def loaded(processes: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def round_trips(internet: Internet, what: str) -> None:
    took = sorted(json.loads(ask(internet, "ping", internet.address(1), PINGS, PAUSE_S)))
    spread = (
        f"{took[0]:.2f} to {took[-1]:.2f} ms, median {median(took):.2f}, 95 of 100 below"
        f" {took[PINGS * 95 // 100]:.2f}"
    )
    late = max(wire.worst_late_ms for wire in internet.statistics().values())
    print(
        f"{PINGS} round trips of 2 x {DELAY_MS} ms, {what}: {spread}; carrier never later than"
        f" {late:.2f} ms"
    )


def throughput(internet: Internet, what: str, link: Link, size: int = MUCH) -> None:
    internet.set_link(0, 1, link)
    with measured(internet, what):
        took = float(ask(internet, "push", internet.address(1), size))
    print(f"TCP, {what}: {size * 8e-6 / took:.3g} Mbit/s")


def main() -> None:
    if reason := Internet.possible():
        sys.exit(reason)
    cores = os.cpu_count() or 1
    with Internet(2, Link(delay_ms=DELAY_MS)) as internet:
        print(f"{cores} cores, TCP with {congestion_control()}")
        server = subprocess.Popen(
            internet.inside(1, [*PROBE, "serve"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with server:
            assert server.stdout is not None
            server.stdout.readline()
            round_trips(internet, "idle")
            with measured(internet, "idle"):
                time.sleep(1)
            with measured(internet, f"{A_SECOND} packets/s"):
                ask(internet, "stream", internet.address(1), STREAM, A_SECOND)
            with loaded(cores):
                round_trips(internet, f"{cores} cores busy")
                with measured(internet, f"{A_SECOND} packets/s, {cores} cores busy"):
                    ask(internet, "stream", internet.address(1), STREAM, A_SECOND)
            throughput(internet, "no delay", Link())
            throughput(internet, "20 ms", Link(delay_ms=20))
            throughput(internet, "20 ms, 1 % loss", Link(delay_ms=20, loss=0.01), LITTLE)


if __name__ == "__main__":
    main()
