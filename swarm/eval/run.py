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
from swarm.eval.engine import InProcess, Sample
from swarm.eval.tasks import Task
from swarm.eval.variant import Variant

AT_ONCE = 4  # generations side by side over a swarm


@dataclass(eq=False)
class EvalError(UsageError):
    """A variant that cannot be run here."""

    problem: str

    def __str__(self) -> str:
        return f"this evaluation is not possible: {self.problem}"


@dataclass(frozen=True)
class Plan:
    """What is decoded: every item of the task by every variant, item ``i`` with the seed ``i``."""

    task: Task
    variants: tuple[Variant, ...]
    temperature: float = 0.0

    @property
    def jobs(self) -> int:
        return len(self.variants) * len(self.task.items)


def run_in_process(
    plan: Plan, model: str, draft: str | None, workers: int, progress: Callable[[int], None]
) -> dict[str, list[Sample]]:
    """The samples of every variant by name, in the task's order.

    ``progress`` is told how many more are done.

    Raises:
        SwarmError: whatever keeps the models from being loaded or the prompts from being decoded.
    """
    jobs = list(_jobs(plan))
    # a forked torch may wait for threads that it does not have
    context = multiprocessing.get_context("spawn")
    # Told before they start: each worker has one core, and a pool of threads in each would only
    # quarrel.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers, context, _start_worker, (model, draft)) as pool:
        samples = []
        for sample in pool.map(_work, jobs, chunksize=1):
            samples.append(sample)
            progress(1)
    return _by_variant(plan, samples)


async def run_over_swarm(
    plan: Plan, client: SwarmClient, progress: Callable[[int], None]
) -> dict[str, list[Sample]]:
    """The same over a swarm; nobody there computes how likely the target finds a text.

    Raises:
        EvalError: for variants that need the whole models at hand.
        SwarmError: what `SwarmClient.generate` raises.
    """
    for variant in plan.variants:
        if variant.who == "draft alone" or variant.without:
            raise EvalError(f"{variant.name!r} runs in process only; leave out --bootstrap")
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: str, variant: Variant, seed: int) -> Sample:
        async with slots:
            options = variant.options(
                plan.temperature, seed, plan.task.stop, plan.task.max_new_tokens
            )
            generation = await client.generate(prompt, **options)
            progress(1)
            return Sample(generation, None)

    # A group would be better, but Python 3.10 has none: on a failure the others are cancelled here.
    tasks = [
        asyncio.create_task(one(item.prompt, variant, seed))
        for seed, item in enumerate(plan.task.items)
        for variant in plan.variants
    ]
    try:
        return _by_variant(plan, await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


Job = tuple[str, Variant, float, int, tuple[str, ...], int]


def _jobs(plan: Plan) -> Iterator[Job]:
    task = plan.task
    for seed, item in enumerate(task.items):
        for variant in plan.variants:
            yield item.prompt, variant, plan.temperature, seed, task.stop, task.max_new_tokens


def _by_variant(plan: Plan, samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    count = len(plan.variants)
    return {variant.name: list(samples[i::count]) for i, variant in enumerate(plan.variants)}


_engine: InProcess | None = None  # of a worker process


def _start_worker(model: str, draft: str | None) -> None:
    global _engine
    torch.set_num_threads(1)
    _engine = InProcess(model, draft)


def _work(job: Job) -> Sample:
    assert _engine is not None
    prompt, variant, temperature, seed, stop, max_new_tokens = job
    return _engine.sample(prompt, variant, variant.options(temperature, seed, stop, max_new_tokens))
