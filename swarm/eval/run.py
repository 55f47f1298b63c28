"""Running variants over a task: in worker processes, or over a swarm."""

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from swarm.client.client import SwarmClient
from swarm.errors import UsageError
from swarm.eval.engine import EvalSample, InProcess
from swarm.eval.tasks import Task
from swarm.eval.variant import Variant
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.model.draft_dtype import check_compute

AT_ONCE = 4  # generations side by side over a swarm


@dataclass(eq=False)
class EvalError(UsageError):
    """A variant that cannot be run here."""

    problem: str

    def __str__(self) -> str:
        return f"this evaluation is not possible: {self.problem}"


@dataclass(frozen=True)
class Evaluation:
    """What to decode: every item of the task by every variant, item ``i`` with the seed ``i``."""

    task: Task
    variants: tuple[Variant, ...]
    temperature: float = 0.0

    @property
    def jobs(self) -> int:
        return len(self.variants) * len(self.task.items)


def run_in_process(
    evaluation: Evaluation,
    model: str,
    draft: str | None,
    workers: int,
    progress: Callable[[int], None],
    compute: ComputeOptions = AUTOMATIC,
) -> dict[str, list[EvalSample]]:
    """Decode in worker processes; return the samples of every variant, in the task's order.

    Args:
        progress: called with the number of samples that were completed since the last call.
        compute: where the workers compute.

    Raises:
        NoSuchDevice, ConfigError: if this computer cannot compute so.
        SwarmError: if the models cannot be loaded or a prompt cannot be decoded.
    """
    check_compute(compute)
    jobs = list(_jobs(evaluation))
    # A forked torch may wait for threads that it does not have.
    context = multiprocessing.get_context("spawn")
    # Set before the workers start: each has one core, which several threads would only contend for.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers, context, _start_worker, (model, draft, compute)) as pool:
        samples = []
        for sample in pool.map(_work, jobs, chunksize=1):
            samples.append(sample)
            progress(1)
    return _by_variant(evaluation, samples)


async def run_over_swarm(
    evaluation: Evaluation, client: SwarmClient, progress: Callable[[int], None]
) -> dict[str, list[EvalSample]]:
    """Decode over a swarm, likewise. The samples have no likelihoods.

    Raises:
        EvalError: for variants that need the whole models in this process.
        SwarmError: what `SwarmClient.generate` raises.
    """
    for variant in evaluation.variants:
        if variant.draft_alone or variant.without:
            raise EvalError(f"{variant.name!r} runs in process only; leave out --bootstrap")
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: str, variant: Variant, seed: int) -> EvalSample:
        async with slots:
            options = variant.options(
                evaluation.temperature, seed, evaluation.task.stop, evaluation.task.max_new_tokens
            )
            generation = await client.generate(prompt, **options)
            progress(1)
            return EvalSample(generation, None)

    # Python 3.10 has no TaskGroup: on a failure the other tasks are cancelled here.
    tasks = [
        asyncio.create_task(one(item.prompt, variant, seed))
        for seed, item in enumerate(evaluation.task.items)
        for variant in evaluation.variants
    ]
    try:
        return _by_variant(evaluation, await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


Job = tuple[str, Variant, float, int, tuple[str, ...], int]


def _jobs(evaluation: Evaluation) -> Iterator[Job]:
    task = evaluation.task
    for seed, item in enumerate(task.items):
        for variant in evaluation.variants:
            yield item.prompt, variant, evaluation.temperature, seed, task.stop, task.max_new_tokens


def _by_variant(
    evaluation: Evaluation, samples: Sequence[EvalSample]
) -> dict[str, list[EvalSample]]:
    count = len(evaluation.variants)
    return {variant.name: list(samples[i::count]) for i, variant in enumerate(evaluation.variants)}


_engine: InProcess | None = None  # of a worker process


def _start_worker(model: str, draft: str | None, compute: ComputeOptions) -> None:
    global _engine
    torch.set_num_threads(1)
    _engine = InProcess(model, draft, compute)


def _work(job: Job) -> EvalSample:
    assert _engine is not None
    prompt, variant, temperature, seed, stop, max_new_tokens = job
    return _engine.sample(prompt, variant, variant.options(temperature, seed, stop, max_new_tokens))
