"""Running a study in workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from swarm.decoding.rules.choose import Verification
from swarm.decoding.sampling import Sampling
from swarm.eval.engine import InProcess
from swarm.eval.lockstep import Assignment
from swarm.eval.run import TOGETHER, EvalError
from swarm.eval.study import MissJudge, Scout, StudiedText
from swarm.eval.tasks import Item, Task
from swarm.eval.workers import in_workers
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.dtype import check_compute


@dataclass(frozen=True)
class StudyPlan:
    """What to study.

    Attributes:
        rules: whose verdicts are noted.
        share: of the cheap misses that are probed, see `Scout`.
    """

    task: Task
    rules: tuple[str, ...]
    temperature: float
    share: float


def run_study(
    plan: StudyPlan, model: str, draft: str, workers: int, compute: ComputeOptions, done: int
) -> Iterator[list[StudiedText]]:
    """Yield the texts of the items behind the first ``done``, some at a time, in the task's order.

    Raises:
        NoSuchDevice, ConfigError: if this computer cannot compute so.
        EvalError: if a model reads one text at a time only.
        SwarmError: if the models cannot be loaded or a prompt cannot be decoded.
    """
    check_compute(compute)
    items = plan.task.items
    jobs = [(start, items[start : start + TOGETHER]) for start in range(done, len(items), TOGETHER)]
    given = (model, draft, compute, plan)
    yield from in_workers(workers, _start_worker, given, _work, jobs)


def study_items(
    engine: InProcess, plan: StudyPlan, items: Sequence[Item], first_seed: int
) -> list[StudiedText]:
    """Study some items of a task; the first has the seed ``first_seed``, the next one more."""
    if engine.lockstep is None:
        raise EvalError("a study needs a target and a draft that read several texts in one forward")
    rules = {rule: Verification.parse(rule) for rule in plan.rules}
    judge = MissJudge(rules, engine.models.lexicon)
    assignments = []
    for seed, item in enumerate(items, first_seed):
        prompt = engine.encode(item.prompt, chat=plan.task.chat)
        engine.check(prompt, plan.task.max_new_tokens)
        scout = Scout(item, judge, len(prompt), plan.share)
        sampling = Sampling(plan.temperature, seed=seed)
        assignments.append(
            Assignment(prompt, [scout], sampling, plan.task.max_new_tokens, plan.task.stop)
        )
    engine.lockstep.run(assignments)
    return [each.writers[0].facts for each in assignments]


_engine: InProcess | None = None  # of a worker
_plan: StudyPlan | None = None


def _start_worker(model: str, draft: str, compute: ComputeOptions, plan: StudyPlan) -> None:
    global _engine, _plan
    torch.set_num_threads(1)
    _engine = InProcess(model, draft, compute)
    _plan = plan


def _work(job: tuple[int, tuple[Item, ...]]) -> list[StudiedText]:
    assert _engine is not None
    assert _plan is not None
    seed, items = job
    return study_items(_engine, _plan, items, seed)
