"""``swarm eval``: decode a task in all variants, and show the report."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress

from swarm.client.client import SwarmClient
from swarm.config import Network
from swarm.eval.report import report
from swarm.eval.run import EvalError, Evaluation, run_in_process, run_over_swarm
from swarm.eval.sample import EvalSample
from swarm.eval.show import markdown, plot, show_table
from swarm.eval.study_file import read_study, write_study
from swarm.eval.study_report import study_facts, study_markdown, study_tables
from swarm.eval.study_run import StudyPlan, run_study
from swarm.eval.tasks import Task
from swarm.eval.variant import DRAFT_ALONE, PLAIN, Variant, ablation, at_equal_gain, ruled, sweep
from swarm.identity import Identity
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.model.heads.loading import names_head
from swarm.terminal import signals


@dataclass(frozen=True)
class EvalSettings:
    """What to compare, and how.

    Attributes:
        tau: values of the sweep.
        ablate: the adaptive rule is compared without all signals, all classes and both, and perhaps
            without each of them.
        margin: accuracy that a variant may lose and still count as not inferior, 0 to 1.
        network: a swarm to decode over; None to decode in workers.
        identity: the client's in that swarm; None for a new one.
        quiet: show no progress.
        compute: where this computer computes.
    """

    model: str
    draft: str
    rules: tuple[str, ...]
    window: int
    temperature: float
    tau: tuple[float, ...]
    ablate: Literal["groups", "each"] | None
    margin: float
    workers: int
    network: Network | None
    identity: Identity | None = None
    quiet: bool = False
    compute: ComputeOptions = AUTOMATIC

    @property
    def processes(self) -> int:
        """Worker processes: as many as were asked for, or half of the cores."""
        return self.workers or max(1, (os.cpu_count() or 2) // 2)


def evaluate(task: Task, settings: EvalSettings) -> dict[str, list[EvalSample]]:
    """Decode all variants: rules, controls, and a blind rule of equal gain for each relaxed one."""
    variants = variants_of(settings)
    samples = _decode(task, variants, settings)
    blind = []
    for rule in (ruled(each, settings.window).name for each in settings.rules):
        if any(sample.relaxed for sample in samples[rule]):
            control = at_equal_gain(samples[rule], settings.window)
            blind.append(replace(control, name=f"random, as much as {rule}"))
    return {**samples, **(_decode(task, blind, settings) if blind else {})}


def variants_of(settings: EvalSettings) -> list[Variant]:
    """Return what is compared, the blind rules left out: their gain is that of the others."""
    relaxed = next((rule for rule in settings.rules if rule.startswith("adaptive")), "adaptive")
    alone = settings.network is None and not names_head(settings.draft)
    variants = [
        PLAIN,
        *([DRAFT_ALONE] if alone else []),
        *(ruled(rule, settings.window) for rule in ("strict", *settings.rules)),
        *sweep(relaxed, "tau", settings.tau, settings.window),
        *_ablation(relaxed, settings),
    ]
    return list({variant.name: variant for variant in variants}.values())


def study(task: Task, settings: EvalSettings, file: Path, share: float, as_: str) -> None:
    """Study single misses, and print the tables.

    Goes on with what stands in ``file`` of the same settings.

    Args:
        share: of the cheap misses that are probed, see `Scout`.
    """
    if settings.network is not None:
        raise EvalError("a study runs in process only; leave out --bootstrap")
    rules = tuple(dict.fromkeys(settings.rules))
    plan = StudyPlan(task, rules, settings.temperature, share)
    head = {
        "task": task.name,
        "new_tokens": task.max_new_tokens,
        "model": Path(settings.model).name,
        "draft": Path(settings.draft).name,
        "rules": list(rules),
        "temperature": settings.temperature,
        "share": share,
    }
    texts = read_study(file, head)
    with _progress(settings) as bar:
        job = bar.add_task("studying misses", total=len(task.items), completed=len(texts))
        for found in run_study(
            plan, settings.model, settings.draft, settings.processes, settings.compute, len(texts)
        ):
            texts += found
            write_study(file, head, texts)
            bar.advance(job, len(found))
    tables = study_tables(texts[: len(task.items)], rules)
    if as_ == "json":
        print(json.dumps({**head, "note": task.note, "tables": study_facts(tables)}))
    else:
        print(study_markdown(tables))


def show(
    task: Task, samples: dict[str, list[EvalSample]], margin: float, as_: str, picture: Path | None
) -> None:
    """Print the report as ``table``, ``markdown`` or ``json``, and plot it into ``picture``."""
    rows = report(task, samples, margin)
    if as_ == "json":
        content = [row.as_dict() for row in rows]
        facts = {"task": task.name, "note": task.note, "margin": margin, "rows": content}
        print(json.dumps(facts))
    elif as_ == "markdown":
        print(markdown(rows))
    else:
        show_table(rows, margin)
    if task.note and as_ != "json":
        print(f"\n{task.note}.")
    if picture:
        plot(rows, picture)


def _decode(
    task: Task, variants: Sequence[Variant], settings: EvalSettings
) -> dict[str, list[EvalSample]]:
    evaluation = Evaluation(task, tuple(variants), settings.temperature)
    with _progress(settings) as bar:
        title = f"{len(variants)} ways, {len(task.items)} items"
        job = bar.add_task(title, total=evaluation.texts)

        def progress(done: int) -> None:
            bar.advance(job, done)

        if settings.network is None:
            return run_in_process(
                evaluation,
                settings.model,
                settings.draft,
                settings.processes,
                progress,
                settings.compute,
            )
        return signals.run(_over_swarm(evaluation, settings, settings.network, progress))


def _ablation(rule: str, settings: EvalSettings) -> list[Variant]:
    if settings.ablate is None:
        return []
    return ablation(rule, settings.window, each=settings.ablate == "each")


def _progress(settings: EvalSettings) -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, disable=settings.quiet or not console.is_terminal)


async def _over_swarm(
    evaluation: Evaluation,
    settings: EvalSettings,
    network: Network,
    progress: Callable[[int], None],
) -> dict[str, list[EvalSample]]:
    async with SwarmClient(
        settings.model,
        draft=settings.draft,
        network=network,
        identity=settings.identity,
        audit_rate=0.0,
        **asdict(settings.compute),
    ) as client:
        return await run_over_swarm(evaluation, client, progress)
