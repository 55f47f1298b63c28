"""``swarm eval``: what is compared, decoded, and shown."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from swarm.client.client import SwarmClient
from swarm.config import Network
from swarm.eval.engine import Sample
from swarm.eval.report import report
from swarm.eval.run import Plan, run_in_process, run_over_swarm
from swarm.eval.show import markdown, plot, show_table
from swarm.eval.tasks import Task
from swarm.eval.variant import DRAFT_ALONE, PLAIN, Variant, ablation, at_equal_gain, ruled, sweep
from swarm.identity import Identity
from swarm.terminal import signals


@dataclass(frozen=True)
class Asked:
    """What the command line asked for."""

    model: str
    draft: str
    rules: tuple[str, ...]
    window: int
    temperature: float
    tau: tuple[float, ...]  # of the sweep
    ablate: bool
    margin: float  # 0 to 1
    workers: int
    network: Network | None  # over a swarm, instead of in process
    identity: Identity | None = None  # there; None: somebody new
    quiet: bool = False  # show no progress


def evaluate(task: Task, asked: Asked) -> dict[str, list[Sample]]:
    """Decode everything: the rules, the controls, and for every relaxed rule a blind one of the
    same gain."""
    relaxed = next((rule for rule in asked.rules if rule.startswith("adaptive")), "adaptive")
    variants = [
        PLAIN,
        *([] if asked.network else [DRAFT_ALONE]),
        *(ruled(rule, asked.window) for rule in ("strict", *asked.rules)),
        *sweep(relaxed, "tau", asked.tau, asked.window),
        *(ablation(relaxed, asked.window) if asked.ablate else []),
    ]
    variants = list({variant.name: variant for variant in variants}.values())
    samples = _decode(task, variants, asked)
    blind = [
        replace(
            at_equal_gain([s.generation for s in samples[rule]], asked.window),
            name=f"random, as much as {rule}",
        )
        for rule in (ruled(each, asked.window).name for each in asked.rules)
        if any(s.generation.stats.relaxed_tokens for s in samples[rule])
    ]
    return {**samples, **(_decode(task, blind, asked) if blind else {})}


def show(
    task: Task, samples: dict[str, list[Sample]], margin: float, as_: str, picture: Path | None
) -> None:
    """Print the report as ``table``, ``markdown`` or ``json``, and draw it if asked to."""
    rows = report(task, samples, margin)
    if as_ == "json":
        print(
            json.dumps(
                {"task": task.name, "margin": margin, "rows": [row.as_dict() for row in rows]}
            )
        )
    elif as_ == "markdown":
        print(markdown(rows))
    else:
        show_table(rows, margin)
    if picture:
        plot(rows, picture)


def _decode(task: Task, variants: Sequence[Variant], asked: Asked) -> dict[str, list[Sample]]:
    plan = Plan(task, tuple(variants), asked.temperature)
    console = Console(stderr=True)
    with (
        Progress(console=console)
        if console.is_terminal and not asked.quiet
        else nullcontext() as bar
    ):
        job = (
            bar.add_task(f"{len(variants)} ways, {len(task.items)} items", total=plan.jobs)
            if bar
            else None
        )

        def progress(done: int) -> None:
            if bar is not None and job is not None:
                bar.advance(job, done)

        if asked.network is None:
            workers = asked.workers or max(1, (os.cpu_count() or 2) // 2)
            return run_in_process(plan, asked.model, asked.draft, workers, progress)
        return signals.run(_over_swarm(plan, asked, asked.network, progress))


async def _over_swarm(
    plan: Plan, asked: Asked, network: Network, progress: Callable[[int], None]
) -> dict[str, list[Sample]]:
    async with SwarmClient(
        asked.model, draft=asked.draft, network=network, identity=asked.identity, audit_rate=0.0
    ) as client:
        return await run_over_swarm(plan, client, progress)
