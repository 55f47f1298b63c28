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
from swarm.model.head import Head
from swarm.model.partial import ReportProgress
from swarm.model.span import Span
from swarm.util.tasks import end


def loader(
    checkpoint: Checkpoint, progress: ReportProgress | None = None, head: bool | None = False
) -> Loader:
    memory = DeviceMemory(torch.device("cpu"))
    room = MemoryBudget.measure(checkpoint, torch.float32, memory, None, head)
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


@pytest.mark.parametrize("asked", [None, True])
async def test_a_head_that_does_not_fit_after_all_is_done_without_unless_it_was_asked_for(
    asked: bool | None, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Head:
        raise MemoryError

    one = loader(tiny, head=asked)
    span = await soon(one.load(2, 4))
    head = await soon(one.load_head(span))
    assert head is not None
    assert head.logits(torch.zeros(1, span.hidden_size)).shape == (1, tiny.vocab_size)
    monkeypatch.setattr(Head, "load", full)
    if asked:
        with pytest.raises(DoesNotFit):
            await soon(one.load_head(span))
    else:
        assert await soon(one.load_head(span)) is None


async def test_no_head_is_held_beside_other_layers_or_where_it_is_not_wanted(
    tiny: Checkpoint,
) -> None:
    assert await soon(loader(tiny, head=None).load_head(Span.load(tiny, 0, 2))) is None
    assert await soon(loader(tiny, head=False).load_head(Span.load(tiny, 2, 4))) is None
