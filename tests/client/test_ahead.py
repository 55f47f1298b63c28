"""A generation drafts and sends ahead of the chain's answers: at its pace, and not after it ended.

In virtual time, with a sequence that is a script.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from helpers.virtual_time import run_in_virtual_time
from swarm.client.ahead import Ahead
from swarm.errors import ChainBroken, ChainSilent


class AtOnce(Executor):
    """Computes where it is asked."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **more))
        except Exception as error:
            done.set_exception(error)
        return done


class Script:
    """A sequence, a chain and those that stand by in one, which note what happens, and when.

    Attributes:
        asks: what is to be drafted.
        windows: what is to be sent.
    """

    def __init__(self) -> None:
        self.asks: deque[str] = deque()
        self.windows: deque[str] = deque()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.log: list[tuple[float, str]] = []
        self.urgent = False
        self.pace_s = 0.0
        self.failure: Exception | None = None
        self.decoder = self

    def note(self, what: str) -> None:
        self.log.append((round(asyncio.get_running_loop().time(), 3), what))

    # The sequence.

    def ask(self) -> str | None:
        return self.asks.popleft() if self.asks else None

    def draft(self, ask: str) -> str:
        if ask == "broken":
            raise ZeroDivisionError
        return f"draft of {ask}"

    def propose(self, ask: str, draft: str) -> None:
        assert draft == f"draft of {ask}"
        self.note(draft)
        self.windows.append(f"window of {ask}")

    def next_window(self) -> str | None:
        return self.windows.popleft() if self.windows else None

    def withdraw(self) -> None:
        self.note("withdrawn")

    # The chain, and those that stand by.

    def sent(self, window: str) -> None:
        self.note(f"told {window}")

    async def send(self, window: str) -> None:
        if self.failure:
            raise self.failure
        self.note(f"sent {window}")

    async def receive(self, rows: int = 0) -> Any:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def sends(self) -> list[tuple[float, str]]:
        return [(at, what) for at, what in self.log if what.startswith("sent")]


def run(work: Callable[[Script, Ahead], Coroutine[Any, Any, None]], script: Script) -> None:
    """Run work beside the two tasks, which end after it."""

    async def beside() -> None:
        ahead = Ahead(script, script, script, AtOnce())  # type: ignore[arg-type]
        try:
            await work(script, ahead)
        finally:
            await ahead.close()

    run_in_virtual_time(beside())


@pytest.fixture
def script() -> Script:
    return Script()


def test_a_draft_is_sent_while_the_next_one_is_made(script: Script) -> None:
    script.asks.extend("ab")

    async def work(script: Script, ahead: Ahead) -> None:
        await asyncio.sleep(1.0)

    run(work, script)
    assert [what for _, what in script.log] == [
        "draft of a",
        "told window of a",  # those that stand by are told before it leaves
        "sent window of a",
        "draft of b",
        "told window of b",
        "sent window of b",
        "withdrawn",
    ]


def test_windows_leave_at_the_chains_pace(script: Script) -> None:
    script.windows.extend("abc")
    script.pace_s = 0.5

    async def work(script: Script, ahead: Ahead) -> None:
        await asyncio.sleep(0.75)
        script.pace_s = 0.0
        await asyncio.sleep(1.0)

    run(work, script)
    assert script.sends == [(0.0, "sent a"), (0.5, "sent b"), (1.0, "sent c")]


def test_an_urgent_window_does_not_wait(script: Script) -> None:
    script.windows.extend("ab")
    script.pace_s = 5.0

    async def work(script: Script, ahead: Ahead) -> None:
        await asyncio.sleep(1.0)
        script.urgent = True
        ahead.go_on()
        await asyncio.sleep(0.5)

    run(work, script)
    assert script.sends == [(0.0, "sent a"), (1.0, "sent b")]


def test_the_pace_is_that_of_the_text_when_a_window_has_left(script: Script) -> None:
    script.windows.append("a")
    script.pace_s = 0.5

    async def work(script: Script, ahead: Ahead) -> None:
        await asyncio.sleep(2.0)
        script.windows.append("b")
        ahead.go_on()
        await asyncio.sleep(0.5)

    run(work, script)
    assert script.sends == [(0.0, "sent a"), (2.0, "sent b")], "it has waited long enough"


def test_once_a_window_has_left_there_is_room_to_draft(script: Script) -> None:
    async def work(script: Script, ahead: Ahead) -> None:
        await asyncio.sleep(1.0)
        script.asks.append("a")
        await asyncio.sleep(1.0)
        assert script.log == [], "nothing has said that there is more to draft"
        script.windows.append("x")
        ahead._may_send.set()
        await asyncio.sleep(1.0)

    run(work, script)
    assert script.sends == [(2.0, "sent x"), (2.0, "sent window of a")]


def test_after_an_answer_there_may_be_more_to_draft_or_to_send(script: Script) -> None:
    async def work(script: Script, ahead: Ahead) -> None:
        await asyncio.sleep(1.0)
        script.asks.append("a")
        ahead.go_on()
        await asyncio.sleep(1.0)
        script.windows.append("x")
        ahead.go_on()
        await asyncio.sleep(1.0)

    run(work, script)
    assert (1.0, "draft of a") in script.log
    assert script.sends == [(1.0, "sent window of a"), (2.0, "sent x")]


def test_the_chains_answer_is_returned_or_its_failure_raised(script: Script) -> None:
    async def work(script: Script, ahead: Ahead) -> None:
        script.answers.put_nowait("one")
        assert await ahead.answer() == "one"
        script.answers.put_nowait(ChainSilent(3.0))
        with pytest.raises(ChainSilent):
            await ahead.answer()

    run(work, script)


def test_a_task_that_dies_ends_the_wait_for_an_answer(script: Script) -> None:
    async def work(script: Script, ahead: Ahead) -> None:
        script.failure = ChainBroken("b", (1, 2), "it hung up")
        script.windows.append("a")
        ahead.go_on()
        with pytest.raises(ChainBroken, match="hung up"):
            await ahead.answer()

    run(work, script)


def test_a_draft_that_fails_ends_the_wait_for_an_answer(script: Script) -> None:
    script.asks.append("broken")

    async def work(script: Script, ahead: Ahead) -> None:
        with pytest.raises(ZeroDivisionError):
            await ahead.answer()

    run(work, script)


def test_an_answer_that_has_come_counts_though_a_task_has_died(script: Script) -> None:
    script.asks.append("broken")

    async def work(script: Script, ahead: Ahead) -> None:
        await asyncio.sleep(1.0)
        script.answers.put_nowait("one")
        assert await ahead.answer() == "one"
        with pytest.raises(ZeroDivisionError):
            await ahead.answer()

    run(work, script)


def test_a_wait_that_is_given_up_takes_no_answer(script: Script) -> None:
    async def work(script: Script, ahead: Ahead) -> None:
        waiting = asyncio.create_task(ahead.answer())
        await asyncio.sleep(1.0)
        waiting.cancel()
        await asyncio.sleep(1.0)
        script.answers.put_nowait("one")
        assert await ahead.answer() == "one"

    run(work, script)


def test_nothing_is_sent_after_the_end(script: Script) -> None:
    async def ends() -> None:
        ahead = Ahead(script, script, script, AtOnce())  # type: ignore[arg-type]
        await asyncio.sleep(1.0)
        await ahead.close()
        script.windows.append("a")
        ahead.go_on()
        await asyncio.sleep(1.0)

    run_in_virtual_time(ends())
    assert script.log == [(1.0, "withdrawn")]
