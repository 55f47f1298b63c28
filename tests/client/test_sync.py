"""The SDK without ``await``: the loop in its thread begins, works for many threads, and ends."""

import asyncio
import inspect
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from swarm.client import sync
from swarm.client.client import SwarmClient
from swarm.client.sync import BlockingClient


class Client:
    """A client that opens no model and enters no network."""

    def __init__(self, model: str, **options: Any) -> None:
        self.model = model
        self.options = options
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.open = 0
        self.streaming = 0

    async def __aenter__(self) -> "Client":
        if self.model == "broken":
            raise ValueError("cannot be loaded")
        self.open += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open -= 1

    async def generate(self, prompt: str, **options: Any) -> tuple[str, dict[str, Any]]:
        self.loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return prompt, options

    async def generate_many(self, prompts: Sequence[str], *, at_once: int, **_: Any) -> list[str]:
        return [*prompts, str(at_once)]

    async def read(self, prompt: str, *, logits_to_keep: int = 0) -> tuple[str, int]:
        return prompt, logits_to_keep

    async def stream(self, prompt: str, **_: Any) -> AsyncIterator[str]:
        self.streaming += 1
        try:
            for word in prompt.split():
                yield word
        finally:
            self.streaming -= 1


@pytest.fixture(autouse=True)
def _client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "SwarmClient", Client)


def started() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "swarm-client"]


def test_its_methods_take_what_those_of_the_client_take() -> None:
    for name, method in inspect.getmembers(BlockingClient, inspect.isfunction):
        if hasattr(SwarmClient, name) and not name.startswith("_"):
            theirs = inspect.signature(getattr(SwarmClient, name)).parameters
            assert inspect.signature(method).parameters == theirs, name


def test_the_loop_lives_in_one_thread_from_open_to_close() -> None:
    with BlockingClient("model", draft="draft") as client:
        inner: Any = client.client
        assert (inner.model, inner.options, inner.open) == ("model", {"draft": "draft"}, 1)
        assert started() == ["swarm-client"]
        assert client.generate("a", seed=1) == ("a", {"seed": 1})
        assert client.generate_many(["a", "b"], at_once=2) == ["a", "b", "2"]
        assert client.read("a", logits_to_keep=3) == ("a", 3)
    assert (inner.open, started()) == (0, [])
    client.close()
    with pytest.raises(RuntimeError, match="the client is not open"):
        client.generate("a")


def test_a_client_that_cannot_be_opened_leaves_no_thread() -> None:
    with pytest.raises(ValueError, match="cannot be loaded"):
        BlockingClient("broken").open()
    assert started() == []


def test_threads_are_served_side_by_side_on_one_loop() -> None:
    with BlockingClient("model") as client, ThreadPoolExecutor(4) as threads:
        together = threading.Barrier(4)

        def write(prompt: str) -> Any:
            together.wait()
            return client.generate(prompt)[0]

        assert list(threads.map(write, "abcd")) == [*"abcd"]
        inner: Any = client.client
        assert len(inner.loops) == 1


def test_a_stream_that_is_left_early_is_closed_on_the_loop() -> None:
    with BlockingClient("model") as client:
        inner: Any = client.client
        assert list(client.stream("a b c")) == ["a", "b", "c"]
        pieces = client.stream("a b c")
        assert next(pieces) == "a"
        assert inner.streaming == 1
        pieces.close()
        assert inner.streaming == 0


def interrupt() -> None:
    """Press Ctrl-C while the main thread waits for the loop, which calls this."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


async def wait_for_ever(ended: threading.Event) -> None:
    """Have the caller interrupted; to end takes a few turns of the loop."""
    try:
        interrupt()
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        ended.set()


def test_an_interrupt_is_raised_when_the_work_on_the_loop_is_over() -> None:
    ended = threading.Event()
    with BlockingClient("model") as client:
        with pytest.raises(KeyboardInterrupt):
            client.run(wait_for_ever(ended))
        assert ended.is_set()


def test_an_interrupt_does_not_wait_for_work_that_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync, "END_TIMEOUT_S", 0.05)
    release = threading.Event()

    async def stay() -> None:
        try:
            interrupt()
            await asyncio.Event().wait()
        finally:
            while not release.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

    with BlockingClient("model") as client:
        with pytest.raises(KeyboardInterrupt):
            client.run(stay())
        release.set()


@pytest.mark.parametrize("patience_s", [5.0, 0.0])
def test_an_interrupt_of_a_stream_reaches_the_reader_as_it_is(
    patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the stream takes longer to end than the reader waits for it."""
    monkeypatch.setattr(sync, "END_TIMEOUT_S", patience_s)
    ended = threading.Event()

    async def stream(self: Client, prompt: str, **_: Any) -> AsyncIterator[str]:
        yield prompt
        await wait_for_ever(ended)

    monkeypatch.setattr(Client, "stream", stream)
    with BlockingClient("model") as client:
        pieces = client.stream("a")
        assert next(pieces) == "a"
        with pytest.raises(KeyboardInterrupt):
            next(pieces)
        assert ended.wait(20)


def test_work_that_is_left_behind_ends_with_the_client() -> None:
    ended = threading.Event()

    async def leave_behind() -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        begun = asyncio.create_task(forever())
        await asyncio.sleep(0)
        assert not begun.done()

    with BlockingClient("model") as client:
        client.run(leave_behind())
        assert not ended.is_set()
    assert ended.is_set()
