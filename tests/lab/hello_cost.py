"""The cost of a handshake: bytes, computing, and the time until a link is open, on loopback.

    PYTHONPATH=. python tests/lab/hello_cost.py

"Without": TCP, TLS and WebSocket are open, and a ping is answered, which a client needs to choose
its peers. "With": the same, with the handshake instead of that ping. Prints a table; nothing is
asserted.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from statistics import median

from peers.access.listener import listening
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.links.connection import Connection
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import HandshakeLimiter
from swarm.network.links.link import Link
from swarm.network.links.websocket import WebSockets
from swarm.wire.handshake import (
    DiallingSide,
    Hello,
    Introduction,
    LocalMember,
    ServingSide,
    Welcome,
    decode,
    encode,
)
from swarm.wire.messages import Ping, Pong

TIMES, WARM_UP = 300, 30
NETWORKS = {"open": Network("cost"), "private": Network("cost", key=bytes(32))}


async def pong(link: Link) -> None:
    async for message in link:
        if isinstance(message, Ping):
            await link.send(Pong(nonce=message.nonce))


def spoken(network: Network) -> None:
    one, other = (
        LocalMember(Identity.generate(), network),
        LocalMember(Identity.generate(), network),
    )
    times, sizes = [], (0, 0, 0)
    for _ in range(TIMES):
        begun = time.perf_counter()
        dialling, serving = (
            DiallingSide(one, other.peer_id, b"channel"),
            ServingSide(other, b"channel"),
        )
        said = encode(dialling.hello)
        answered = encode(serving.welcome(decode(said, Hello)))
        introduced = encode(dialling.welcomed(decode(answered, Welcome)))
        serving.introduced(decode(introduced, Introduction))
        times.append((time.perf_counter() - begun) * 1e3)
        sizes = len(said), len(answered), len(introduced)
    print(
        f"  {' + '.join(map(str, sizes))} = {sum(sizes)} bytes; computing, both sides:"
        f" {median(times):.2f} ms"
    )


async def opened(network: Network) -> None:
    limiter = HandshakeLimiter(LocalMember(Identity.generate(), network))
    where = limiter.me.identity.certificate_fingerprint, limiter.me.peer_id
    async with AsyncExitStack() as life:
        address = (
            f"127.0.0.1:{await life.enter_async_context(listening(limiter, '127.0.0.1', 0, pong))}"
        )
        dialer, websockets = Dialer(LocalMember(Identity.generate(), network)), WebSockets()
        life.push_async_callback(dialer.close)
        life.push_async_callback(websockets.close)
        bare, pings, whole = [], [], []
        for _ in range(TIMES + WARM_UP):
            begun = time.perf_counter()
            link = await websockets.open(address, where[0])
            bare.append((time.perf_counter() - begun) * 1e3)
            await link.close()
            begun = time.perf_counter()
            connection = Connection(where[1], await dialer.connect(address, *where))
            whole.append((time.perf_counter() - begun) * 1e3)
            pings.append(await connection.ping())
            await connection.close()
        without, with_ = median(bare[WARM_UP:]) + median(pings[WARM_UP:]), median(whole[WARM_UP:])
        alone = median(pings[WARM_UP:])
        print(
            f"  until open and measured: {without:.2f} ms without, {with_:.2f} ms with; a ping"
            f" alone: {alone:.2f} ms"
        )


def main() -> None:
    for name, network in NETWORKS.items():
        print(f"{name} network")
        spoken(network)
        asyncio.run(opened(network))


if __name__ == "__main__":
    main()
