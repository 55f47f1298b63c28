"""The programs in a terminal and in a script, against one swarm of real processes."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from helpers.loopback import alive
from swarm.demo import DRAFT, TARGET
from swarm.demo.local import LocalSwarm
from swarm.util.tasks import within

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("warmly")]
HANG_S = 300.0
CTRL_C, CTRL_D = "\x03", "\x04"
# a loop a token, and never the end
ENDLESS = ("--window", "0", "--max-new-tokens", "400", "--logit-bias", "2=-100")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def where(
    warmly: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, ...]]:
    """Return the options that lead to a swarm with links of 20 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("SWARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        async with LocalSwarm(TARGET, [(0, 8)], link_ms=20.0) as swarm:
            yield "--bootstrap", swarm.bootstrap, "--network", swarm.network.name


class Screen:
    """A program in a terminal of its own."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "swarm.cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(slave)
        self.shown = ""
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def shows(self, words: str, times: int = 1) -> None:
        await self._until(lambda: self.shown.count(words) >= times)

    async def ends(self) -> int:
        await self._until(lambda: not alive(self.process.pid))
        return self.process.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        try:
            self.shown += os.read(self._master, 1 << 16).decode(errors="replace")
        except OSError:  # the program has ended
            asyncio.get_running_loop().remove_reader(self._master)

    async def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + HANG_S
        while not condition():
            assert time.monotonic() < deadline, f"the terminal shows:\n{self.shown}"
            await asyncio.sleep(0.02)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Screen]:
    screen = Screen(arguments)
    try:
        yield screen
    finally:
        screen.close()


async def script(
    *arguments: str, said: str = "", env: Mapping[str, str] | None = None, module: str = "swarm.cli"
) -> tuple[int, str, str]:
    """Return exit code and output of a program with this standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    out, err = await within(HANG_S, process.communicate(said.encode()))
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def complaints(err: str) -> list[str]:
    """Return a program's standard error, without warnings of optional libraries."""
    assert "Traceback" not in err
    return [
        line for line in err.splitlines() if "torchao" not in line and "torch/utils" not in line
    ]


async def test_ctrl_c_stops_an_answer_and_ctrl_d_the_chat(where: tuple[str, ...]) -> None:
    with terminal("chat", TARGET, "--raw", *ENDLESS, *where) as chat:
        await chat.shows("/help lists what you can do here")
        chat.type("Problem: Mia has 12 coins. Tom has 5 coins more.\r")
        await chat.shows(" gives")
        chat.type(CTRL_C)
        await chat.shows("the conversation keeps this part")
        chat.type("/set max-new-tokens 2\r")
        await chat.shows("max-new-tokens is 2, from the next answer on.")
        chat.type("half a line" + CTRL_C)
        chat.type("/retry\r")
        await chat.shows("2 tokens, ")
        chat.type(CTRL_D)
        assert await chat.ends() == 0
    assert "Traceback" not in chat.shown
    history = Path(os.environ["SWARM_HOME"]) / "chat.history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+/retry" in history.read_text()


async def test_lines_of_a_pipe_are_answered_without_prompts(where: tuple[str, ...]) -> None:
    # none can be
    chat = (
        "chat",
        TARGET,
        "--raw",
        "--draft",
        DRAFT,
        "--max-new-tokens",
        "8",
        "--audit",
        "0",
        *where,
    )
    code, out, err = await script(*chat, said="Problem: Mia\n has\n")
    assert (code, complaints(err)) == (0, [])
    assert len(out.splitlines()) >= 2
    assert not {"\x1b", ">"} & set(out)
    code, as_json, err = await script(*chat, "--json", said="Problem: Mia\n has\n")
    assert (code, complaints(err)) == (0, [])
    answers = [json.loads(line) for line in as_json.splitlines()]
    assert [answer["question"] for answer in answers] == ["Problem: Mia", " has"]
    assert out == "".join(answer["text"] + "\n" for answer in answers)
    assert answers[1]["stats"]["cached_tokens"] >= 0


async def test_the_exit_code_tells_that_answers_have_failed(where: tuple[str, ...]) -> None:
    code, out, err = await script("chat", DRAFT, "--raw", *where, said="Problem:\nProblem:\n")
    assert (code, out) == (4, "\n\n")
    assert [line.partition(":")[0] for line in complaints(err)] == ["error"] * 2
    assert "no peer serves" in err


async def test_a_signal_to_its_whole_group_ends_a_text_in_order(where: tuple[str, ...]) -> None:
    """`timeout`, systemd and shells signal the group: libp2p's daemon must outlive the client."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "swarm.cli",
            "generate",
            TARGET,
            "Problem: Mia has",
            *ENDLESS,
            *where,
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert await within(HANG_S, process.stdout.read(1))
    os.killpg(process.pid, signal.SIGTERM)
    _, err = await within(HANG_S, process.communicate())
    assert (process.returncode, [line for line in complaints(err.decode()) if line]) == (
        143,
        ["stopped"],
    )


async def test_a_text_that_goes_nowhere_is_no_fault(where: tuple[str, ...]) -> None:
    generate = ("generate", TARGET, "Problem:", "--max-new-tokens", "4", *where)
    shell = ("-c", '"$0" -m swarm.cli "$@" >&-', sys.executable, *generate)
    process = await asyncio.create_subprocess_exec("sh", *shell, stderr=asyncio.subprocess.PIPE)
    _, err = await within(HANG_S, process.communicate())
    assert process.returncode == 0
    assert "4 tokens" in err.decode()


async def test_a_terminal_that_knows_ascii_only(where: tuple[str, ...]) -> None:
    code, out, err = await script("status", *where, env={"PYTHONIOENCODING": "ascii"})
    assert (code, complaints(err)) == (0, [])
    assert "All layers are served." in out
    assert out.isascii()
