"""Hostile clients of a swarm, for `lab.soak`.

They run in a process of their own, at the lowest priority. It reads one JSON object from standard
input: the network's name, and the peers.

Each attack comes from an address of its own, so that no ban for another attack stops it, and at a
fixed rate, until standard input ends. Then the process prints one JSON object with the number of
times that each attack was done.
"""

import asyncio
import functools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import torch

from swarm.config import Network
from swarm.identity import Identity
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.wire.codec import WireError
from swarm.wire.handshake import LocalMember
from swarm.wire.messages import Close, Frame, Hop, Open, Ping
from swarm.wire.tensors import WireTensor

NICENESS = 19
FIRST_SOURCE = 66  # 127.0.0.66 and on: all of 127/8 is ours
HELD_LINKS, HOARDS, HALF_HANDSHAKES = 600, 30, 100


@dataclass
class Target:
    """One peer."""

    address: str
    certificate: str
    peer_id: str
    first: int
    last: int
    fingerprint: str
    hidden: int
    context: int


@dataclass
class Hostile:
    """The attacks of one address on the peers of a swarm."""

    source: str
    network: str
    targets: list[Target]
    sent: Counter[str]
    links: list[Link] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(0)
        # An identity of its own, too.
        self.dialer = Dialer(LocalMember(Identity.generate(), Network(self.network)))
        here = aiohttp.TCPConnector(limit=0, local_addr=(self.source, 0))
        self.dialer._websockets._http._connector = here

    async def again(self, attack: "functools.partial[Awaitable[None]]", per_second: float) -> None:
        """Attack one peer after the other, without end."""
        while True:
            await asyncio.sleep(self.chance.expovariate(per_second))
            with suppress(LinkClosed, WireError, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(attack(self.chance.choice(self.targets)), 20.0)
            self.sent[attack.func.__name__] += 1

    async def link(self, to: Target) -> Link:
        return await self.dialer.connect(to.address, to.certificate, to.peer_id)

    def opening(self, to: Target, tokens: int, onward: Hop | None = None) -> Open:
        session = self.chance.randbytes(16)
        return Open(
            session=session,
            fingerprint=to.fingerprint,
            first=to.first,
            last=to.last,
            max_tokens=tokens,
            next=onward,
        )

    def frame(
        self, opening: Open, to: Target, first: int, epoch: int = 0, value: float = 0.0
    ) -> Frame:
        tokens = (3,) * 16 if not to.first else None
        hidden = None if tokens else WireTensor.pack(torch.full((16, to.hidden), value))
        return Frame(
            session=opening.session,
            epoch=epoch,
            first=first,
            tail=16,
            parents=(first, *(1,) * 15),
            tokens=tokens,
            hidden=hidden,
        )

    # What it does.

    async def open_and_close(self, to: Target) -> None:
        async with await self.link(to) as link:
            for _ in range(100):
                opening = self.opening(to, 64)
                await link.send(opening)
                await link.send(Close(session=opening.session))

    async def hoard(self, to: Target) -> None:
        link = await self.link(to)
        self.links.append(link)
        for _ in range(16):
            await link.send(self.opening(to, to.context))
        if len(self.links) > HOARDS:
            await self.links.pop(0).close()

    async def vanish(self, to: Target) -> None:
        link = await self.link(to)
        opening = self.opening(to, 256)
        await link.send(opening)
        await link.receive()
        await link.send(self.frame(opening, to, 1))
        link._transport.abort()
        await link.close()

    async def ping(self, to: Target) -> None:
        async with await self.link(to) as link:
            for nonce in range(6000):
                await link.send(Ping(nonce=nonce))

    async def flood(self, to: Target) -> None:
        async with await self.link(to) as link:
            opening = self.opening(to, to.context)
            await link.send(opening)
            await link.receive()
            for epoch in range(100):
                await link.send(self.frame(opening, to, 1 + 16 * epoch, epoch))

    async def speak_nonsense(self, to: Target) -> None:
        async with await self.link(to) as link:
            await link._write(self.chance.randbytes(50))

    async def take_links(self, to: Target) -> None:
        self.links = [link for link in self.links if not link.closed]
        if len(self.links) < HELD_LINKS:
            self.links.append(await self.link(to))

    async def half_a_handshake(self, to: Target) -> None:
        host, _, port = to.address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), local_addr=(self.source, 0))
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a ClientHello
        self.writers.append(writer)
        if len(self.writers) > HALF_HANDSHAKES:
            self.writers.pop(0).transport.abort()

    async def read_nothing(self, to: Target) -> None:
        link = await self.link(to)
        opening = self.opening(to, to.context)
        await link.send(opening)
        await link.receive()
        link._transport.pause_reading()  # type: ignore[attr-defined]
        for epoch in range(100):
            await link.send(self.frame(opening, to, 1 + 16 * epoch, epoch))
            await asyncio.sleep(0.05)
        link._transport.abort()
        await link.close()

    async def send_no_numbers(self, to: Target) -> None:
        async with await self.link(to) as link:
            opening = self.opening(to, 256)
            await link.send(opening)
            await link.receive()
            await link.send(self.frame(opening, to, 1, value=float("nan")))
            await link.receive()

    async def have_dialled(self, to: Target) -> None:
        async with await self.link(to) as link:
            nobody = Hop(
                peer_id=to.peer_id,
                address=f"127.0.0.1:{self.chance.randrange(1, 1000)}",
                certificate="0" * 64,
            )
            await link.send(self.opening(to, 64, nobody))
            await link.receive()


# How often a second each is done.
ATTACKS: list[tuple[Callable[[Hostile, Target], Awaitable[None]], float]] = [
    (Hostile.open_and_close, 1.0),
    (Hostile.hoard, 1.0),
    (Hostile.vanish, 1.0),
    (Hostile.ping, 0.04),
    (Hostile.flood, 0.5),
    (Hostile.speak_nonsense, 8.0),
    (Hostile.take_links, 6.0),
    (Hostile.half_a_handshake, 2.0),
    (Hostile.read_nothing, 0.2),
    (Hostile.send_no_numbers, 0.5),
    (Hostile.have_dialled, 1.0),
]


async def attack(network: str, targets: list[Target], sent: Counter[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for number, (attack, per_second) in enumerate(ATTACKS):
            hostile = Hostile(f"127.0.0.{FIRST_SOURCE + number}", network, targets, sent)
            group.create_task(hostile.again(functools.partial(attack, hostile), per_second))


async def main() -> None:
    loop = asyncio.get_running_loop()
    asked = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    sent = Counter[str]()
    attacking = asyncio.create_task(
        attack(asked["network"], [Target(**each) for each in asked["targets"]], sent)
    )
    ended = loop.run_in_executor(None, sys.stdin.read)
    await asyncio.wait(
        {attacking, asyncio.ensure_future(ended)}, return_when=asyncio.FIRST_COMPLETED
    )
    if attacking.done():
        attacking.result()
    print(json.dumps(sent), flush=True)
    os._exit(0)  # what is open is left to the kernel, as an attacker would


if __name__ == "__main__":
    os.nice(NICENESS)
    asyncio.run(main())
