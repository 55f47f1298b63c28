"""Running variants over a task: in workers, or over a swarm."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from swarm.client.client import SwarmClient
from swarm.client.conversation import asking
from swarm.errors import UsageError
from swarm.eval.engine import Decoding, InProcess
from swarm.eval.sample import EvalSample
from swarm.eval.tasks import Item, Task
from swarm.eval.variant import Variant
from swarm.eval.workers import in_workers
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.model.drafts.dtype import check_compute

AT_ONCE = 4  # generations side by side over a swarm
TOGETHER = 8  # prompts that a worker decodes in the same forwards


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
    def texts(self) -> int:
        return len(self.variants) * len(self.task.items)

    @property
    def decoding(self) -> Decoding:
        task = self.task
        return Decoding(self.variants, self.temperature, task.max_new_tokens, task.stop, task.chat)


def run_in_process(
    evaluation: Evaluation,
    model: str,
    draft: str | None,
    workers: int,
    progress: Callable[[int], None],
    compute: ComputeOptions = AUTOMATIC,
) -> dict[str, list[EvalSample]]:
    """Decode in workers; return the samples of every variant, in the task's order.

    Args:
        progress: called with the number of samples that were completed since the last call.
        compute: where the workers compute.

    Raises:
        NoSuchDevice, ConfigError: if this computer cannot compute so.
        SwarmError: if the models cannot be loaded or a prompt cannot be decoded.
    """
    check_compute(compute)
    prompts = [item.prompt for item in evaluation.task.items]
    starts = range(0, len(prompts), TOGETHER)
    jobs = [(start, prompts[start : start + TOGETHER]) for start in starts]
    given = (model, draft, compute, evaluation.decoding)
    samples: list[list[EvalSample]] = []
    for decoded in in_workers(workers, _start_worker, given, _work, jobs):
        samples += decoded
        progress(sum(map(len, decoded)))
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
    how = evaluation.decoding

    async def one(item: Item, variant: Variant, seed: int) -> EvalSample:
        async with slots:
            generation = await client.generate(
                _prompt(client, item, how.chat), **how.options(variant, seed)
            )
            progress(1)
            return EvalSample.of(generation)

    # Python 3.10 has no TaskGroup: on a failure the other tasks are cancelled here.
    tasks = [
        asyncio.create_task(one(item, variant, seed))
        for seed, item in enumerate(evaluation.task.items)
        for variant in evaluation.variants
    ]
    try:
        samples = await asyncio.gather(*tasks)
        count = len(evaluation.variants)
        each = [samples[start : start + count] for start in range(0, len(samples), count)]
        return _by_variant(evaluation, each)
    finally:
        for task in tasks:
            task.cancel()


def _prompt(client: SwarmClient, item: Item, chat: bool) -> str | list[int]:
    """Return a prompt in the form that the model's chat template gives it, if it has one."""
    if not chat:
        return item.prompt
    return asking(client.models.tokenizer, client.models.checkpoint.name)(item.prompt)


def _by_variant(
    evaluation: Evaluation, samples: Sequence[Sequence[EvalSample]]
) -> dict[str, list[EvalSample]]:
    """Turn the samples of each item, in the order of the variants, into those of each variant."""
    return {
        variant.name: [each[index] for each in samples]
        for index, variant in enumerate(evaluation.variants)
    }


_engine: InProcess | None = None  # of a worker
_decoding: Decoding | None = None


def _start_worker(
    model: str, draft: str | None, compute: ComputeOptions, decoding: Decoding
) -> None:
    global _engine, _decoding
    torch.set_num_threads(1)
    _engine = InProcess(model, draft, compute)
    _decoding = decoding


def _work(job: tuple[int, list[str]]) -> list[list[EvalSample]]:
    """Decode some prompts, the first of which has this seed."""
    assert _engine is not None
    assert _decoding is not None
    seed, prompts = job
    return _engine.decode(prompts, range(seed, seed + len(prompts)), _decoding)
