"""An internet on one machine: hosts are network namespaces, and one process carries their packets.

    with Internet(3, Link(delay_ms=20)) as internet:
        subprocess.run(internet.inside(0, ["ping", "-c1", internet.address(1)]))
        internet.set_link(0, 2, Link(delay_ms=80, jitter_ms=5, loss=0.01, mbit_per_s=20))

Only the links are emulated: programs inside a host use the kernel's own TCP, with its handshakes,
slow start, delayed acknowledgements and Nagle's algorithm.
"""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.carrier import DEVICE, MTU, QUEUE
from lab.links import Link, Statistics
from swarm.errors import ConfigError, LocalError

MAX_HOSTS = 100  # the carrier looks at each of them whenever it wakes
START_TIMEOUT_S = 60.0  # of the carrier: a tenth of a second on a machine that is not busy
ANSWER_TIMEOUT_S = 30.0  # it takes a millisecond
STOP_TIMEOUT_S = 30.0
NAMESPACES = Path("/run/netns")
PREFIX = "swarm-lab"
TESTS = Path(__file__).resolve().parents[1]  # where `lab` can be imported

_numbers = itertools.count()


@dataclass(eq=False)
class InternetFailed(LocalError):
    """The emulated internet failed: `what` was tried, and `why` it failed."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"The emulated internet failed to {self.what}: {self.why}."


class Internet:
    """A context manager that creates hosts and removes them in any case.

    It blocks, also under asyncio: a call takes less than a millisecond, entering some 10 ms a host.
    Processes in a host have to be ended before leaving: they would run on without a network. What a
    killed process leaves behind is removed when the next one enters.

    Args:
        hosts: how many, numbered from 0; each has a loopback of its own, and no way out of this
            internet.
        link: between any two of them, each way. The default takes no time.
        seed: of jitter and loss.
    """

    def __init__(self, hosts: int, link: Link = Link(), seed: int = 0) -> None:  # noqa: B008 - a Link is frozen
        if not 1 <= hosts <= MAX_HOSTS:
            raise ConfigError("hosts", f"{hosts} is not within 1 to {MAX_HOSTS}")
        self.hosts = hosts
        self._link = link
        self._seed = seed
        run = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self._namespaces = [f"{run}-{host}" for host in range(hosts)]
        self.carrier: subprocess.Popen[bytes] | None = None

    @staticmethod
    def possible() -> str:
        """Return an empty string if this machine can do it, else a sentence with the reason."""
        if sys.platform != "linux":
            return "An emulated internet needs Linux."
        if os.geteuid() != 0:
            return "An emulated internet needs root, for network namespaces."
        if not shutil.which("ip"):
            return "An emulated internet needs the command `ip` (iproute2)."
        if not Path("/dev/net/tun").exists():
            return "An emulated internet needs /dev/net/tun (`modprobe tun`)."
        try:
            with Internet(1):  # a container's root may lack the right to, or its kernel the module
                return ""
        except InternetFailed as failure:
            return str(failure)

    def __enter__(self) -> "Internet":
        """Create the hosts. Raise `InternetFailed`, after removing what was created."""
        sweep()
        with ExitStack() as undo:
            for host, namespace in enumerate(self._namespaces):
                undo.callback(_delete, namespace)
                _make(namespace, self.address(host))
            self._start_carrier(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def address(self, host: int) -> str:
        """Return the address of a host."""
        return f"10.77.0.{self._known(host) + 1}"

    def inside(self, host: int, command: Sequence[str]) -> list[str]:
        """Return a command that runs ``command`` in a host, under the same process id."""
        return ["ip", "netns", "exec", self._namespaces[self._known(host)], *command]

    def set_link(self, a: int, b: int, link: Link, both_ways: bool = True) -> None:
        """Change the links between ``a`` and ``b``, both ways."""
        self._ask({"do": "set_link", "pairs": self._pairs(a, b, both_ways), "link": asdict(link)})

    def cut(self, a: int, b: int, both_ways: bool = True) -> None:
        """Drop all packets until `restore`, without an error on either side."""
        self._ask({"do": "cut", "pairs": self._pairs(a, b, both_ways)})

    def restore(self, a: int, b: int, both_ways: bool = True) -> None:
        self._ask({"do": "restore", "pairs": self._pairs(a, b, both_ways)})

    def hide(self, host: int) -> None:
        """Put a host behind a router that lets in answers only, until `open`.

        The router does not know earlier connections.
        """
        self._ask({"do": "hide", "host": self._known(host)})

    def open(self, host: int) -> None:
        """Let all packets in to a host again."""
        self._ask({"do": "open", "host": self._known(host)})

    def statistics(self) -> dict[tuple[int, int], Statistics]:
        """Return the statistics by (from, to), for every ordered pair of hosts."""
        wires = self._ask({"do": "statistics"})["wires"]
        return {
            (source, destination): Statistics(*counts) for source, destination, *counts in wires
        }

    def _known(self, host: int) -> int:
        if not 0 <= host < self.hosts:
            raise ConfigError(
                "host", f"{host} is not one of the {self.hosts} hosts, numbered from 0"
            )
        return host

    def _pairs(self, a: int, b: int, both_ways: bool) -> list[tuple[int, int]]:
        if self._known(a) == self._known(b):
            raise ConfigError("host", f"{a} reaches itself over loopback, not over a link")
        return [(a, b), (b, a)] if both_ways else [(a, b)]

    def _start_carrier(self, undo: ExitStack) -> None:
        hosts = {namespace: self.address(host) for host, namespace in enumerate(self._namespaces)}
        plan = {"hosts": hosts, "link": asdict(self._link), "seed": self._seed}
        self._socket, theirs = socket.socketpair()
        # before the namespaces go: a device that vanishes under it is an error there
        undo.callback(self._end_carrier)
        undo.enter_context(self._socket)  # its closing tells the carrier to end
        self._answers = undo.enter_context(self._socket.makefile("rb"))
        with theirs:
            self.carrier = subprocess.Popen(
                [sys.executable, "-m", "lab.carrier", json.dumps(plan)],
                stdin=theirs.fileno(),
                cwd=TESTS,
                # Ctrl-C in the terminal is for us alone: we end it in order
                start_new_session=True,
            )
        self._hear("start its carrier", START_TIMEOUT_S)

    def _end_carrier(self) -> None:
        carrier, self.carrier = self.carrier, None
        if carrier is None:
            return
        try:
            carrier.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            carrier.kill()
            carrier.wait()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        if self.carrier is None:
            raise InternetFailed(command["do"], "it is not entered")
        with suppress(BrokenPipeError):  # it has ended, as hearing will tell
            self._socket.sendall(json.dumps(command).encode() + b"\n")
        return self._hear(command["do"], ANSWER_TIMEOUT_S)

    def _hear(self, what: str, timeout_s: float) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        try:
            line = self._answers.readline()
        except OSError as error:
            raise InternetFailed(what, f"the carrier does not answer ({error})") from error
        if not line:
            raise InternetFailed(what, "the carrier has ended; standard error may say why")
        answer: dict[str, Any] = json.loads(line)
        return answer


def sweep() -> None:
    """Remove what killed runs left behind; the names hold the ids of their processes."""
    for path in NAMESPACES.glob(f"{PREFIX}-*"):
        pid = path.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            _delete(path.name)


def congestion_control() -> str:
    """Return the TCP congestion control of all hosts, so that figures depend less on the machine.

    BBR, for example, hardly reacts to loss. It is cubic, Linux's default, where a namespace may
    choose it, else Reno, which is always allowed. Over links like ours, short and not fast, cubic
    keeps to Reno's pace anyway (RFC 9438, 4.3).
    """
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    return "cubic" if "cubic" in allowed else "reno"


def _make(namespace: str, address: str) -> None:
    _ip(["netns", "add", namespace])
    _ip(
        ["-n", namespace, "-batch", "-"],
        f"tuntap add dev {DEVICE} mode tun\n"
        f"link set lo up\n"
        f"link set {DEVICE} mtu {MTU} txqueuelen {QUEUE} up\n"
        f"addr add {address}/16 dev {DEVICE}\n",
    )
    setting = f"echo {congestion_control()} > /proc/sys/net/ipv4/tcp_congestion_control"
    _ip(["netns", "exec", namespace, "sh", "-c", setting])


def _delete(namespace: str) -> None:
    if (NAMESPACES / namespace).exists():
        with suppress(InternetFailed):  # another run may sweep at the same time
            _ip(["netns", "del", namespace])


def _ip(arguments: list[str], lines: str = "") -> None:
    done = subprocess.run(["ip", *arguments], input=lines, text=True, capture_output=True)
    if done.returncode != 0:
        complaint = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise InternetFailed(f"run `ip {' '.join(arguments)}`", complaint.rstrip("."))
