"""Generate texts while peers are killed or links cut, and compare them with undisturbed ones.

    python tests/lab/chaos.py [--cut] [--standby] ...

Eight peers serve every layer of the demo target twice, over an emulated internet with links of
20 ms. Every text is generated undisturbed first. Then it is generated again, while every few
seconds a peer is killed and another one started in its place, or a link is cut without being closed
and restored later. Prints for every text whether it is the same.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.local_swarm import replace_peer
from lab.ground import Ground, ground
from lab.internet import Internet
from lab.links import Link
from swarm.util.tasks import end

PEERS, COVERAGE, DELAY_MS = 8, 2, 20.0
MAX_CHUNK = 3  # texts a request, so that progress is seen


@asynccontextmanager
async def killing(place: Ground, every_s: float, chance: random.Random) -> AsyncIterator[list[str]]:
    """Kill a peer at intervals, and start another one in its place."""
    done: list[str] = []
    replacing: dict[int, asyncio.Task[None]] = {}

    async def strike() -> None:
        while True:
            await asyncio.sleep(every_s)
            alive = [i for i in range(PEERS) if i not in replacing or replacing[i].done()]
            number = chance.choice(alive)
            replacing[number] = asyncio.create_task(replace_peer(place.swarm, number))
            done.append(f"peer {number} killed")

    async with _beside(strike()):
        yield done
    await asyncio.gather(*replacing.values())


@asynccontextmanager
async def cutting(place: Ground, every_s: float, chance: random.Random) -> AsyncIterator[list[str]]:
    """Cut a link at intervals, for nearly as long: packets vanish, and both sides get no error."""
    done: list[str] = []
    internet = place.internet
    assert internet is not None
    pairs = [(0, 2 + number) for number in range(PEERS)]  # the client is host 0
    for (i, a), (j, b) in combinations(enumerate(place.swarm.spans), 2):
        if a[1] == b[0]:  # they may follow each other in a chain
            pairs.append((2 + i, 2 + j))

    async def strike() -> None:
        while True:
            a, b = chance.choice(pairs)
            internet.cut(a, b)
            done.append(f"link {a}-{b} cut")
            try:
                await asyncio.sleep(every_s)
            finally:
                internet.restore(a, b)

    async with _beside(strike()):
        yield done


@asynccontextmanager
async def _beside(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        failed = task.done() and not task.cancelled()
        await end(task)
        if failed:
            task.result()


async def write(place: Ground, texts: int, tokens: int, standby: bool) -> list[dict[str, Any]]:
    """Generate ``texts`` texts of ``tokens`` tokens each."""
    written: list[dict[str, Any]] = []
    while len(written) < texts:
        count = min(MAX_CHUNK, texts - len(written))
        answer = await place.ask(
            "write", skip=len(written), prompts=count, max_new_tokens=tokens, standby=standby
        )
        written += answer["texts"]
    return written


async def run(
    generations: int, tokens: int, every_s: float, cut: bool, standby: bool, seed: int
) -> int:
    async with ground(PEERS, coverage=COVERAGE) as place:
        place.set_links(Link(delay_ms=DELAY_MS))
        expected = await write(place, generations, tokens, standby)
        async with (cutting if cut else killing)(place, every_s, random.Random(seed)) as strikes:
            written = await write(place, generations, tokens, standby)
    same = [a["token_ids"] == b["token_ids"] for a, b in zip(expected, written, strict=True)]
    for number, (text, is_same) in enumerate(zip(written, same, strict=True)):
        for failover in text["failovers"]:
            print(f"text {number}: {failover}")
        if not is_same:
            print(f"text {number}: NOT the same; {text['error'] or 'it was written to its end'}")
    failovers = [failover for text in written for failover in text["failovers"]]
    print(f"{len(strikes)} strikes, every {every_s:g} s: {', '.join(strikes)}")
    print(
        f"{sum(same)} of {generations} texts of {tokens} tokens are the same; {len(failovers)}"
        " failovers"
    )
    at_once = [failover for failover in failovers if not failover["waited_ms"]]
    print(
        f"for {len(failovers) - len(at_once)} of them peers had to be waited for; of the"
        f" {len(at_once)} others:"
    )
    for standing_by in (False, True):
        for part in ("noticed_ms", "repair_ms", "pause_ms"):
            values = sorted(
                failover[part] for failover in at_once if failover["standby"] == standing_by
            )
            if values:
                who = (
                    f"{len(values)} with a peer that stood by"
                    if standing_by
                    else f"{len(values)} without"
                )
                print(f"{who}: {part}: median {median(values):.0f}, most {values[-1]:.0f}")
    speed = [
        median(text["tokens_per_second"] for text in each if not text["error"])
        for each in (expected, written)
    ]
    print(f"median speed: {speed[0]:.1f} tokens/s undisturbed, {speed[1]:.1f} disturbed")
    return 0 if all(same) else 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Texts are written while peers are killed, or links cut."
    )
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--every", type=float, default=5.0, metavar="S")
    parser.add_argument("--cut", action="store_true", help="cut links instead of killing peers")
    parser.add_argument("--standby", action="store_true", help="let peers stand by")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if why := Internet.possible():
        sys.exit(f"no emulated internet here: {why}")
    sys.exit(
        asyncio.run(
            run(asked.generations, asked.tokens, asked.every, asked.cut, asked.standby, asked.seed)
        )
    )


if __name__ == "__main__":
    main()
