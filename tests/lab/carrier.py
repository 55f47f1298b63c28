"""The process that carries packets between the hosts of an emulated internet.

`lab.internet` starts it:

    python -m lab.carrier PLAN

PLAN is JSON: ``{"hosts": {namespace: address, ...}, "link": {...}, "seed": 0}``. Its standard input
is a socket to the owner. When it holds the devices of all hosts it writes ``{}``. Then each line of
JSON is a command, answered by one line:
``{"do": "set_link", "pairs": [[from, to], ...], "link": {...}}``,
``{"do": "cut" | "restore", "pairs": [...]}``, ``{"do": "hide" | "open", "host": 0}`` or
``{"do": "statistics"}``. It ends when the socket closes.

One thread with one `select` does everything, with the real-time scheduler where that is allowed,
because the peers of an experiment load every core.
"""

import ctypes
import fcntl
import gc
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from heapq import heappop, heappush
from typing import Any

from lab.links import Link, Wire
from lab.nat import Nat

DEVICE = "internet"
# the internet's: slow start and loss go by packets, so larger ones would flatter every link
MTU = 1500
# timers are late by about this much, so it is spun away: 5 % of a core at 500 packets/s
SPIN_S = 100e-6
# packets between kernel and carrier: too few, and bursts lose some that no statistics count
QUEUE = 10_000
MAX_READ_AT_ONCE = 32  # packets of one host before due ones are handed over: some 0.2 ms of work
REAL_TIME_PRIORITY = 1  # the lowest is above every ordinary process

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Carrier:
    """Takes packets from the hosts' devices, delays or drops them, and delivers them.

    Args:
        devices: for each host the file descriptor of its TUN device, non-blocking.
        addresses: for each host its IPv4 address as four bytes.
        wires: for each ordered pair of hosts.
        owner: sends the commands.
    """

    def __init__(
        self,
        devices: Sequence[int],
        addresses: Sequence[bytes],
        wires: Mapping[tuple[int, int], Wire],
        owner: socket.socket,
    ) -> None:
        self._devices = devices
        self._wires = wires
        self._host_of_device = {device: host for host, device in enumerate(devices)}
        self._host_of_address = {address: host for host, address in enumerate(addresses)}
        # a heap of (when, from, to), also of what a cut has taken since
        self._due: list[tuple[float, int, int]] = []
        self._nats: dict[int, Nat] = {}  # of hosts that are behind one
        self._owner = owner
        # a line held in a buffer would wake no `select`
        self._commands = owner.makefile("rb", buffering=0)
        self._watched = [*devices, owner.fileno()]
        self._owned = True

    def run(self) -> None:
        """Carry packets until the owner is gone."""
        self._answer({})
        while self._owned:
            for ready in self._wait():
                if ready in self._host_of_device:
                    self._take(ready)
                else:
                    self._obey()
            self._hand_over(time.monotonic())

    def _wait(self) -> list[int]:
        """Return descriptors with something to read; none once a packet is (nearly) due."""
        patience = max(0.0, self._due[0][0] - time.monotonic() - SPIN_S) if self._due else None
        return select.select(self._watched, [], [], patience)[0]

    def _take(self, device: int) -> None:
        source = self._host_of_device[device]
        for _ in range(MAX_READ_AT_ONCE):
            try:
                packet = os.read(device, MTU)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:
                continue  # IPv6 looks for neighbours on its own
            destination = self._host_of_address.get(packet[16:20])
            if destination is None or destination == source:
                continue  # nobody lives there
            if source in self._nats:
                self._nats[source].goes_out(packet)
            due = self._wires[source, destination].send(packet, time.monotonic())
            if due is not None:
                heappush(self._due, (due, source, destination))

    def _hand_over(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, source, destination = heappop(self._due)
            nat = self._nats.get(destination)
            for packet in self._wires[source, destination].receive(now):
                if nat is None or nat.lets_in(packet):
                    os.write(self._devices[destination], packet)

    def _obey(self) -> None:
        line = self._commands.readline()
        if not line:
            self._owned = False
            return
        command = json.loads(line)
        wires = [
            self._wires[source, destination] for source, destination in command.get("pairs", [])
        ]
        match command["do"]:
            case "set_link":
                for wire in wires:
                    wire.link = Link(**command["link"])
            case "cut":
                for wire in wires:
                    wire.cut()
            case "restore":
                for wire in wires:
                    wire.restore()
            case "hide":
                self._nats.setdefault(command["host"], Nat())
            case "open":
                self._nats.pop(command["host"], None)
            case "statistics":
                self._answer(
                    {
                        "wires": [
                            [*pair, *astuple(wire.statistics)] for pair, wire in self._wires.items()
                        ]
                    }
                )
                return
        self._answer({})

    def _answer(self, answer: dict[str, Any]) -> None:
        # the owner is gone: the next line read says so
        with suppress(BrokenPipeError, ConnectionResetError):
            self._owner.sendall(json.dumps(answer).encode() + b"\n")


def open_device(namespace: str) -> int:
    """Open the TUN device of a namespace.

    This process stays in that namespace until it opens the next device.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # Python has no setns before 3.12
    with open(f"/run/netns/{namespace}", "rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "cannot enter the namespace", namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return device


def come_first() -> None:
    """Get a real-time priority, as far as this machine allows it."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REAL_TIME_PRIORITY))
    except OSError:
        with suppress(OSError):
            os.nice(-20)


def main() -> None:
    plan = json.loads(sys.argv[1])
    hosts: dict[str, str] = plan["hosts"]
    link, seed = Link(**plan["link"]), plan["seed"]
    wires = {
        (source, destination): Wire(link, random.Random(f"{seed}: {source} to {destination}"))
        for source in range(len(hosts))
        for destination in range(len(hosts))
        if source != destination
    }
    devices = [open_device(namespace) for namespace in hosts]
    addresses = [socket.inet_aton(address) for address in hosts.values()]
    come_first()
    gc.disable()  # packets make no cycles, and a collection would hold them up
    Carrier(devices, addresses, wires, socket.socket(fileno=sys.stdin.fileno())).run()


if __name__ == "__main__":
    main()
