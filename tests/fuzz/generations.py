"""Whole texts over peers that sometimes send wrong messages, while others could replace them.

Each text is the right one, or ends with an error that tells the user what to do.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fuzz.arena import Complaints, watched_by
from fuzz.mutate import changed
from helpers.swarm_in_process import STAGES, Material, Swarm, swarm_of
from swarm.errors import SwarmError
from swarm.network.links.link import Link
from swarm.util.tasks import within
from swarm.wire.codec import encode
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Frame, Result, WireMessage

LIMIT_S = 120.0  # of real time for a text of a few words: anything longer hangs
WAYS: tuple[dict[str, Any], ...] = ({}, {"window": 0}, {"window": 4, "depth": 1}, {"standby": True})


@dataclass
class Report:
    """The outcomes of the texts."""

    texts: int = 0
    right: int = 0
    replaced: int = 0  # peers
    lies: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)  # by seed

    def __str__(self) -> str:
        errors = (
            ", ".join(f"{count} {name}" for name, count in sorted(self.errors.items()))
            or "no errors"
        )
        return (
            f"generations: {self.texts} texts, {self.right} right, {self.replaced} peers replaced"
            f" after {self.lies} lies, {errors}; {len(self.failures)} failures"
        )


class Liar:
    """Wraps a peer's links, and replaces some of its messages.

    A replaced message never is a valid answer with other numbers: audits have to find such lies.
    """

    def __init__(self, random: Random, chance: float) -> None:
        self.lies = 0
        self._random = random
        self._chance = chance
        self._said: list[bytes] = []

    def stand_before(self, serve: Callable[[Link], Any]) -> Callable[[Link], Any]:
        async def lying(link: Link) -> None:
            link.send = self._sender(link, link.send)  # type: ignore[method-assign]
            await serve(link)

        return lying

    def _sender(
        self, link: Link, send: Callable[[WireMessage], Any]
    ) -> Callable[[WireMessage], Any]:
        async def say(message: WireMessage) -> int:
            random = self._random
            self._said = [*self._said[-20:], encode(message)]
            if random.random() > self._chance:
                return int(await send(message))
            self.lies += 1
            match random.randrange(6):
                case 0:
                    return 0
                case 1:
                    await send(message)
                    return int(await send(message))
                case 2 if not isinstance(message, Frame | Result):
                    await link._send_now(changed(encode(message), self._said, random)[:10_000])
                case 3:
                    await link._send_now(random.randbytes(40))
                case 4:
                    session = getattr(message, "session", None)
                    await send(
                        Fault(code=random.choice(list(FaultCode)), text="no", session=session)
                    )
                case _:
                    link._transport.abort()
            return 0

        return say


def fuzz(texts: int, seed: int) -> Report:
    """Generate ``texts`` texts, each from a seed of its own."""
    torch.set_num_threads(1)
    report = Report()
    with TemporaryDirectory() as folder:
        material = Material.load(Path(folder))
        expected = asyncio.run(_write(material, None, {}, report))
        for each in range(seed * 1_000_000, seed * 1_000_000 + texts):
            random, complaints = Random(each), Complaints()
            try:
                with watched_by(complaints):
                    said = asyncio.run(_write(material, random, random.choice(WAYS), report))
            except Exception as error:
                report.failures.append((each, f"{type(error).__name__}: {error}"))
            else:
                if isinstance(said, SwarmError):
                    name = type(said).__name__
                    report.errors[name] = report.errors.get(name, 0) + 1
                    if not str(said).isprintable():
                        report.failures.append(
                            (each, f"an error is not one sentence: {str(said)!r}")
                        )
                elif said == expected:
                    report.right += 1
                else:
                    report.failures.append((each, f"another text: {said}"))
            report.texts += 1
            report.failures += [(each, complaint) for complaint in complaints.said]
    return report


async def _write(
    material: Material, random: Random | None, way: dict[str, Any], report: Report
) -> tuple[int, ...] | SwarmError:
    """Generate a text over three peers, two of which may lie, with three more to replace them.

    At the end every peer must have given back all that it held.
    """
    liars = []
    async with swarm_of(lambda: Swarm(material), *STAGES, *STAGES) as swarm:
        if random is not None:
            for peer in random.sample(swarm.up, 2):
                liars.append(Liar(random, random.choice((0.02, 0.1, 0.5))))
                peer.server._serve = liars[-1].stand_before(peer.server._serve)
        try:
            text = await within(LIMIT_S, swarm.write(**way))
        except SwarmError as error:
            return error
        finally:
            report.lies += sum(liar.lies for liar in liars)
        report.replaced += sum(len(failover.peers) for failover in text.stats.failovers)
    return text.token_ids
