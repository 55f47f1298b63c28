"""A home router: packets from inside go out, and only answers to them come in.

Addresses are not translated, since every host of the emulated internet has one of its own.
"""

from collections import OrderedDict

MAX_FLOWS = 10_000  # remembered; the oldest are forgotten
TCP, UDP = 6, 17

Flow = tuple[int, bytes, bytes]  # protocol; address and port of the other side; our port


class Nat:
    """One host's router. Packets are whole IPv4 packets."""

    def __init__(self) -> None:
        self._flows: OrderedDict[Flow, None] = OrderedDict()

    def goes_out(self, packet: bytes) -> None:
        """Remember the destination of a packet from inside."""
        ports = _ports(packet)
        flow = (packet[9], packet[16:20] + ports[2:], ports[:2])
        self._flows[flow] = None
        self._flows.move_to_end(flow)
        if len(self._flows) > MAX_FLOWS:
            self._flows.popitem(last=False)

    def lets_in(self, packet: bytes) -> bool:
        """Tell whether a packet from outside answers one from inside."""
        ports = _ports(packet)
        return (packet[9], packet[12:16] + ports[:2], ports[2:]) in self._flows


def _ports(packet: bytes) -> bytes:
    """Return source and destination port, two bytes each; empty if the protocol has none."""
    header = 4 * (packet[0] & 15)
    return packet[header : header + 4] if packet[9] in (TCP, UDP) else b""
