"""Hostile peers against a client: whatever they answer, its session ends in time.

It ends with answers or with a clear error.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random

import msgpack
import torch

from fuzz.arena import PATIENCE_S, SkippingLoop, pair, run, settle
from fuzz.mutate import changed
from fuzz.schema import IDENTITIES, valid
from helpers.records import peer_record
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.terms import Terms
from swarm.decoding.windows import Window
from swarm.errors import SwarmError
from swarm.network.links.connection import Connection
from swarm.network.links.libp2p import StreamLink
from swarm.routing.chain import Stage
from swarm.util.tasks import end, within
from swarm.wire import codec
from swarm.wire.codec import WireError
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Fault,
    Frame,
    Open,
    Opened,
    Ping,
    Pong,
    Probe,
    Progress,
    Result,
    WireMessage,
)
from swarm.wire.tensors import WireTensor

HIDDEN, PEERS, WINDOWS = 8, 2, 4
STEP_S = 3.0  # that time goes on by while nothing happens
SESSION_S = 400.0  # of skipped time: no session of so few windows may take longer


class Liar:
    """A peer's end of a link that answers at random; the chain's ``last`` peer answers frames."""

    def __init__(
        self, link: StreamLink, good: float, random: Random, last: "Liar | None" = None
    ) -> None:
        self._link = link
        self._good = good
        self._random = random
        self._last = last
        self._heard: list[bytes] = []
        self.task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        await end(self.task)
        await self._link.close()

    async def _serve(self) -> None:
        try:
            async for message in self._link:
                speaker = (
                    self._last if self._last is not None and isinstance(message, Frame) else self
                )
                for data in speaker._answers(message):
                    speaker._link._writer.write(len(data).to_bytes(4, "big") + data)
        except WireError:
            raise AssertionError("a client says what is no message") from None

    def _answers(self, message: WireMessage) -> list[bytes]:
        random, honest = self._random, honest_answer(message)
        good = [] if honest is None else [codec.encode(honest)]
        self._heard = [*self._heard[-20:], codec.encode(message), *good]
        if random.random() < self._good:
            return good
        match random.randrange(9):
            case 0:
                return []
            case 1:
                return good * random.choice((2, 3, 600))
            case 2:
                return [changed(each, self._heard, random)[:100_000] for each in good]
            case 3:
                return [random.randbytes(random.choice((1, 9, 300)))]
            case 4:
                kind = random.choice(list(codec._KINDS))
                fields = valid(codec._KINDS[kind], random)
                if "session" in fields:
                    fields["session"] = getattr(message, "session", fields["session"])
                return [msgpack.packb([codec.PROTOCOL_VERSION, kind, fields]), *good]
            case 5:
                self._link._transport.abort()
                return []
            case 6 if isinstance(honest, Result):
                return [codec.encode(self._wrong(honest))]
            case 7:
                fault = Fault(
                    code=random.choice(list(FaultCode)),
                    text="no",
                    session=getattr(message, "session", None),
                    peer=random.choice((None, *(each.peer_id for each in IDENTITIES))),
                )
                return [codec.encode(fault)]
            case _:
                return [random.choice(self._heard), *good]

    def _wrong(self, result: Result) -> Result:
        """Return nearly the due answer; changes that pydantic would refuse are dropped."""
        random = self._random
        tokens = random.choice((0, result.hidden.tokens, result.count))
        values = torch.full(
            (tokens, random.choice((HIDDEN, HIDDEN, 4))), random.choice((1.0, float("nan"), 3e38))
        )
        changes = random.choice(
            (
                {},
                {"epoch": result.epoch + 1},
                {"first": result.first + 1},
                {"count": 256},
                {"compute_ms": (1e7,) * 64},
            )
        )
        return result.model_copy(update={"hidden": WireTensor.pack(values), **changes})


def honest_answer(message: WireMessage) -> WireMessage | None:
    match message:
        case Open():
            return Opened(session=message.session)
        case Frame():
            values = WireTensor.pack(torch.ones(message.tail, HIDDEN))
            return Result(
                session=message.session,
                epoch=message.epoch,
                first=message.first,
                count=message.count,
                hidden=values,
                compute_ms=(1.0,),
            )
        case Probe():
            return Progress(session=message.session, epoch=0, last=0, passed=0)
        case Ping():
            return Pong(nonce=message.nonce)
    return None


def play(seed: int) -> tuple[str, list[str]]:
    """Run one session over two peers that lie. Return how it ended, and what went wrong."""
    # of the peers and the client, and of the clock
    random, chance, ends = Random(seed), Random(seed), [""]

    async def work() -> list[str]:
        liars: list[Liar] = []
        links: list[ChainLink] = []
        failures: list[str] = []
        good = random.choice((0.5, 0.9, 0.97, 0.99))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        for number in reversed(range(PEERS)):
            ours, theirs = await pair("peer:1")
            liars.append(Liar(theirs, good, random, liars[0] if liars else None))
            peer_id = IDENTITIES[number].peer_id
            stage = Stage(peer_id, number, number + 1)
            links.insert(
                0, ChainLink(stage, peer_record(peer_id), Connection(peer_id, ours, loop.time))
            )
        client = asyncio.create_task(_use(links, random))
        started = loop.time()
        try:
            while not client.done() and loop.time() - started < SESSION_S:
                await asyncio.wait({client}, timeout=0.002)
                loop.skipped_s += STEP_S if chance.random() < 0.1 else 0.0
                await settle(2)
            if not client.done():
                failures.append("the client hangs")
            else:
                ends[0] = client.result()
        except SwarmError as error:
            ends[0] = type(error).__name__
            if "\n" in str(error) or not str(error).isprintable():
                failures.append(f"an error is not one sentence: {str(error)!r}")
        except Exception as error:
            failures.append(f"the client raised {type(error).__name__}: {error}")
        await end(client)
        for link in links:
            await within(PATIENCE_S, link.connection.close())
        for liar in liars:
            if liar.task.done() and liar.task.exception():
                failures.append(str(liar.task.exception()))
            await liar.close()
        await settle(20)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        return [*failures, *([f"tasks are left over: {left}"] if left else [])]

    failures = run(work)
    return ends[0], failures


@dataclass
class Report:
    """The outcomes of sessions with liars."""

    sessions: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[int, list[str]]] = field(default_factory=list)  # by seed

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return f"hostile: {self.sessions} sessions: {ends}; {len(self.failures)} failures"


def fuzz(count: int, seed: int) -> Report:
    """Run ``count`` sessions, each from a seed of its own."""
    report = Report()
    for each in range(seed * 1_000_000, seed * 1_000_000 + count):
        end, failures = play(each)
        report.sessions += 1
        report.ends[end] = report.ends.get(end, 0) + 1
        if failures:
            report.failures.append((each, failures))
    return report


async def _use(links: list[ChainLink], random: Random) -> str:
    """Send some windows, several at a time, as a generation does."""
    epoch = first = 0
    terms, clock = Terms("0" * 32, 512, HIDDEN), asyncio.get_running_loop().time
    async with ChainSession(links, terms, clock) as session:
        for _ in range(WINDOWS):
            ahead = random.choice((1, 3))
            for _ in range(ahead):
                tokens = tuple(range(random.choice((1, 4))))
                await session.send(Window(epoch, 0, first + 1, tokens, None, len(tokens), 0))
                first += len(tokens)
            answered = 0
            while answered < ahead:
                answer = await session.receive()
                assert answer.hidden.shape[1] == HIDDEN, "an answer of another width"
                answered += 1
            if random.random() < 0.2:
                epoch += 1
    return "answers"
