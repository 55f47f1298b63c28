"""A program that runs inside the hosts of an emulated internet to test it. It needs only Python.

- ``probe.py serve``: an echo (TCP), a sink (TCP) and a datagram sink, until standard input closes
- ``probe.py ping ADDRESS COUNT PAUSE_S``: round trips of 64 bytes over one connection, in ms, as a
  JSON list
- ``probe.py push ADDRESS BYTES``: the seconds until the other side has all bytes of one connection
- ``probe.py stream ADDRESS COUNT A_SECOND``: datagrams of 100 bytes
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable

ECHO_PORT, SINK_PORT, DATAGRAM_PORT = 7001, 7002, 7003
PATIENCE_S = 60.0  # with a connection on which nothing moves
CONNECT_TIMEOUT_S = 2.0
PING_BYTES, DATAGRAM_BYTES = 64, 100
CHUNK = 1 << 16


def serve() -> None:
    for port, serve_one in ((ECHO_PORT, _echo), (SINK_PORT, _sink)):
        listening = socket.create_server(("", port))
        threading.Thread(target=_accept, args=(listening, serve_one), daemon=True).start()
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    # without it every datagram would be answered by an ICMP packet
    datagrams.bind(("", DATAGRAM_PORT))
    print("up", flush=True)
    sys.stdin.read()


def ping(address: str, count: int, pause_s: float) -> list[float]:
    took = []
    with _connect(address, ECHO_PORT) as connection:
        for _ in range(count):
            sent = time.perf_counter()
            connection.sendall(bytes(PING_BYTES))
            _read(connection, PING_BYTES)
            took.append((time.perf_counter() - sent) * 1e3)
            time.sleep(pause_s)
    return took


def push(address: str, size: int) -> float:
    with _connect(address, SINK_PORT) as connection:
        started = time.perf_counter()
        connection.sendall(bytes(size))
        connection.shutdown(socket.SHUT_WR)
        arrived = int.from_bytes(_read(connection, 8), "big")
        assert arrived == size, f"{arrived} of {size} bytes arrived"
        return time.perf_counter() - started


def stream(address: str, count: int, a_second: float) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        started = time.perf_counter()
        for sent in range(count):
            time.sleep(max(0.0, started + sent / a_second - time.perf_counter()))
            datagrams.sendto(bytes(DATAGRAM_BYTES), (address, DATAGRAM_PORT))


def _accept(listening: socket.socket, serve_one: Callable[[socket.socket], None]) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while said := connection.recv(CHUNK):
            connection.sendall(said)


def _sink(connection: socket.socket) -> None:
    arrived = 0
    with connection:
        while said := connection.recv(CHUNK):
            arrived += len(said)
        connection.sendall(arrived.to_bytes(8, "big"))


def _connect(address: str, port: int) -> socket.socket:
    connection = socket.create_connection((address, port), CONNECT_TIMEOUT_S)
    connection.settimeout(PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read(connection: socket.socket, size: int) -> bytes:
    said = b""
    while len(said) < size:
        more = connection.recv(size - len(said))
        if not more:
            raise ConnectionError(f"closed after {len(said)} of {size} bytes")
        said += more
    return said


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["ping", address, count, pause_s]:
            print(json.dumps(ping(address, int(count), float(pause_s))))
        case ["push", address, size]:
            print(push(address, int(size)))
        case ["stream", address, count, a_second]:
            stream(address, int(count), float(a_second))
        case _:
            sys.exit(__doc__)
