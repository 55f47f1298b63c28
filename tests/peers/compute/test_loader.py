"""Layers are loaded in a thread that nobody has to wait for."""

import asyncio
import threading

import pytest
import torch

from helpers.loopback import eventually, soon
from peers.compute.loader import Loader
from peers.compute.memory import DeviceMemory, DoesNotFit, MemoryBudget
from swarm.model import span as spans
from swarm.model.checkpoint import Checkpoint
from swarm.model.partial import ReportProgress
from swarm.util.tasks import end


def loader(checkpoint: Checkpoint, progress: ReportProgress | None = None) -> Loader:
    room = MemoryBudget.measure(checkpoint, torch.float32, DeviceMemory(torch.device("cpu")), None)
    return Loader(checkpoint, torch.float32, room, 1, progress)


async def test_layers_come_with_progress_and_are_measured(tiny: Checkpoint) -> None:
    progress: list[tuple[int, int]] = []
    one = loader(tiny, lambda done, total: progress.append((done, total)))
    span = await soon(one.load(1, 3))
    assert (span.first, span.last) == (1, 3)
    assert 0 < progress[-1][0] == progress[-1][1] <= span.nbytes
    assert await soon(one.measure(span)) > 0


async def test_whoever_is_cancelled_leaves_no_thread_that_loads(tiny: Checkpoint) -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        begun.set()
        go_on.wait(20)

    loading = asyncio.create_task(loader(tiny, progress).load(0, 4))
    await eventually(begun.is_set)
    await soon(end(loading))
    go_on.set()
    await soon(asyncio.get_running_loop().shutdown_default_executor())
    assert calls == 1


async def test_memory_that_runs_out_all_the_same_is_one_sentence(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(spans, "build", fail)
    with pytest.raises(DoesNotFit) as caught:
        await soon(loader(tiny).load(1, 3))
    assert caught.value.layers == (1, 3)
