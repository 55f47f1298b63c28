"""Honest clients generate texts while hostile ones attack.

    python tests/lab/soak.py [--minutes 30]

Four peers serve every layer of the demo target twice, as processes that delay their messages as an
internet would. Texts are generated undisturbed, then while the hostile clients of `lab.hostile`
attack every peer from other addresses, then undisturbed once more. Prints how fast texts were,
whether they are the same, how much memory the peers took, and what they refused.

The attackers share the machine's cores with their victims. So that the attackers' own computing is
not what is measured, they run at the lowest priority and at rates that leave them mostly asleep;
their share of a core is printed.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.ground import Ground, ground
from swarm.demo import TARGET, locate
from swarm.demo.local import LocalSwarm
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.network.dht.directory import Directory
from swarm.util.tasks import end

PEERS, COVERAGE, LINK_MS, TOKENS = 4, 2, 10.0, 60
HOSTILE = Path(__file__).with_name("hostile.py")
UNDISTURBED_SHARE = 0.15  # of the time, before and after


@dataclass
class Memory:
    """The peers' memory over time."""

    every_s: float
    mib: list[list[float]] = field(default_factory=list)  # of each peer, each time

    async def watch(self, swarm: LocalSwarm) -> None:
        while True:
            self.mib.append([resident_mib(peer.pid) for peer in swarm.peers])
            await asyncio.sleep(self.every_s)

    @property
    def slopes(self) -> list[float]:
        """Return the growth of each peer in the second half, in MiB a minute, by least squares."""
        later = self.mib[len(self.mib) // 2 :]
        return [slope(peer, self.every_s / 60) for peer in zip(*later, strict=True)]


def slope(values: Any, step: float) -> float:
    middle = (len(values) - 1) / 2
    spread = sum((i - middle) ** 2 for i in range(len(values)))
    return (
        sum((i - middle) * value for i, value in enumerate(values)) / spread / step
        if spread
        else 0.0
    )


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def attacked(
    swarm: LocalSwarm, sent: Counter[str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Attack all peers within the block."""
    checkpoint = Checkpoint.open(str(locate(TARGET)))
    async with await Directory.join(
        Identity.generate(), swarm.network, client_mode=True
    ) as directory:
        records = await directory.peers(checkpoint.fingerprint, checkpoint.num_layers)
    targets = [
        {
            "address": record.addresses[0],
            "certificate": record.certificate,
            "peer_id": record.peer_id,
            "first": record.first_layer,
            "last": record.last_layer,
            "fingerprint": record.fingerprint,
            "hidden": checkpoint.hidden_size,
            "context": checkpoint.max_positions or 2048,
        }
        for record in records
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HOSTILE), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(
            json.dumps({"network": swarm.network.name, "targets": targets}).encode() + b"\n"
        )
        await process.stdin.drain()
        yield process
        assert process.returncode is None, "the attackers have failed"
        process.stdin.close()
        sent.update(json.loads(await asyncio.wait_for(process.stdout.readline(), 30.0)))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def write(place: Ground, seconds: float, texts: int) -> list[dict[str, Any]]:
    """Generate the same few texts again and again, for so long."""
    written: list[dict[str, Any]] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(written) < texts:
        answer = await place.ask(
            "write", skip=len(written) % texts, prompts=1, max_new_tokens=TOKENS
        )
        written += answer["texts"]
    return written


def speed(texts: list[dict[str, Any]]) -> float:
    return median(text["tokens_per_second"] for text in texts)


def refusals(said: list[str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for line in said:
        if line.startswith("refused "):
            for count, kind in re.findall(
                r"(\d+) ([a-z_]+)(?:,|$)", line.partition(":")[2].strip()
            ):
                counted[kind] += int(count)
    return counted


async def run(minutes: float, texts: int) -> int:
    quiet_s, memory, sent = (
        minutes * 60 * UNDISTURBED_SHARE,
        Memory(min(60.0, minutes * 6)),
        Counter[str](),
    )
    async with ground(PEERS, LINK_MS, COVERAGE) as place:
        swarm = place.swarm
        await write(place, 0, texts)  # everything is loaded and warm
        before = await write(place, quiet_s, texts)
        watching = asyncio.create_task(memory.watch(swarm))
        async with attacked(swarm, sent) as attackers:
            began, burnt_s = time.monotonic(), cpu_s(attackers.pid)
            during = await write(place, minutes * 60 - 2 * quiet_s, texts)
            share = (cpu_s(attackers.pid) - burnt_s) / (time.monotonic() - began)
        await end(watching)
        after = await write(place, quiet_s, texts)
    refused = refusals(swarm.output)
    expected = [text["token_ids"] for text in before[:texts]]
    same = sum(
        text["token_ids"] == expected[i % texts]
        for each in (during, after)
        for i, text in enumerate(each)
    )
    undisturbed = speed([*before, *after])
    print(f"attacks: {', '.join(f'{count} {name}' for name, count in sent.most_common())}")
    print(f"the attackers themselves took {share:.0%} of a core, at the lowest priority")
    print(f"refused: {', '.join(f'{count} {kind}' for kind, count in refused.most_common())}")
    print(f"peers' memory in MiB, every {memory.every_s:g} s:")
    for mib in memory.mib:
        print("  " + "  ".join(f"{each:.1f}" for each in mib))
    print(
        f"growing by {', '.join(f'{each:.2f}' for each in memory.slopes)} MiB a minute in the"
        " second half"
    )
    print(f"{same} of {len(during) + len(after)} texts are the same")
    print(f"failovers: {sum(len(text['failovers']) for text in during)}")
    print(
        f"tokens/s: {speed(before):.1f} before, {speed(during):.1f} attacked, {speed(after):.1f}"
        f" after: {speed(during) / undisturbed:.2f} of the undisturbed speed"
    )
    return 0 if same == len(during) + len(after) and sent and refused else 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Honest clients write texts while hostile ones do what they can."
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--texts", type=int, default=5, help="different ones")
    asked = parser.parse_args()
    sys.exit(asyncio.run(run(asked.minutes, asked.texts)))


if __name__ == "__main__":
    main()
