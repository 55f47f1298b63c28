"""Drafters compared on a real model, over peers on this machine behind emulated links.

    python tests/lab/real_chain.py MODEL DATA [--draft HEAD] [--kind gsm8k] [--count 4] [...]

Starts peers that share the layers of MODEL, and then ``swarm bench --drafts`` on prompts out of
the files in DATA (see `lab.copies`). Options that are not the script's own are given to ``swarm
bench``.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.copies import prompts_by_kind
from swarm.demo.local import NETWORK, LocalSwarm, even_spans
from swarm.model.checkpoint import Checkpoint


def write_prompts(data: Path, kinds: Sequence[str], skip: int, count: int, file: Path) -> None:
    """Write prompts of the kinds in Spec-Bench's form.

    Args:
        skip: prompts of each kind, the first ones.
        count: prompts of each kind.
    """
    by_kind = prompts_by_kind(data)
    with file.open("w", encoding="utf-8") as out:
        for kind in kinds or by_kind:
            for prompt in by_kind[kind][skip : skip + count]:
                out.write(json.dumps({"category": kind, "turns": [prompt]}) + "\n")


async def compare(given: argparse.Namespace, more: Sequence[str], prompts: Path) -> int:
    """Start the peers, compare the drafters, and return the command's exit code."""
    model = str(given.model)
    spans = even_spans(Checkpoint.open(model).num_layers, given.peers)
    async with LocalSwarm(model, spans, given.link_ms, more=("--dtype", given.dtype)) as swarm:
        bench = [sys.executable, "-m", "swarm.cli", "bench", model, "--drafts"]
        bench += ["--bootstrap", swarm.bootstrap, "--network", NETWORK]
        bench += ["--link-ms", str(given.link_ms), "--prompts", str(prompts)]
        bench += ["--count", str(given.count), *more]
        process = await asyncio.create_subprocess_exec(*bench)
        return await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--link-ms", type=float, default=20.0)
    parser.add_argument("--dtype", default="auto", help="of the peers")
    parser.add_argument("--kind", action="append", default=[], help="may be given several times")
    parser.add_argument("--skip", type=int, default=0, help="prompts of each kind")
    parser.add_argument("--count", type=int, default=4, help="prompts of each kind")
    given, more = parser.parse_known_args()
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as prompts:
        write_prompts(given.data, given.kind, given.skip, given.count, Path(prompts.name))
        sys.exit(asyncio.run(compare(given, more, Path(prompts.name))))


if __name__ == "__main__":
    main()
