"""Signals end a program in order at any point, unless it was started to ignore them."""

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals

import pytest

from helpers.loopback import default_signals
from swarm.terminal import signals
from swarm.terminal.signals import Stopped, on_signals, run, stop_signals, stoppable, stopped_by

HANG_S = 300.0
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
SCRIPTS = {
    home.partition(".")[0]: home
    for home in re.findall(r'^swarm\S* = "([\w.]+:\w+)"$', PROJECT.read_text(), re.M)
}
GUARD = (
    "import signal, sys, time\n"
    "from swarm.cli.main import guard\n"
    "sys.exit(guard(lambda **_: command(), 'swarm'))"
)


def started(script: str, **options: object) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    settings = {
        "stdout": pipe,
        "stderr": pipe,
        "text": True,
        "preexec_fn": default_signals,
        **options,
    }
    return subprocess.Popen([sys.executable, "-uc", script], **settings)  # type: ignore[call-overload, no-any-return]


def program(*lines: str) -> str:
    """Return a program that calls `guard` for a command of these lines."""
    body = "\n    ".join(lines)
    return GUARD.replace("sys.exit", f"def command():\n    {body}\nsys.exit")


def ended(process: "subprocess.Popen[str]", number: Signals) -> tuple[int, str]:
    """Signal a program once it has printed "up"; return exit code and complaints."""
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        return process.wait(HANG_S), process.stderr.read() if process.stderr else ""


IMPORTING = ("print('up')", "while True: time.sleep(0.001)")
RUNNING = (
    "import asyncio",
    "from swarm.terminal.signals import run",
    "async def work():",
    "    try:",
    "        print('up')",
    "        await asyncio.Event().wait()",
    "    finally:",
    "        await asyncio.sleep(0)",
    "        print('tidied up')",
    "        raise FileNotFoundError(2, 'No such file or directory')",
    "run(work())",
)


@pytest.mark.parametrize("lines", [IMPORTING, RUNNING], ids=["before there is a loop", "in a loop"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_program_ends_with_the_code_of_its_signal(
    lines: Sequence[str], number: Signals, code: int
) -> None:
    said, complaints = ended(started(program(*lines)), number)
    assert (said, complaints.split()) == (code, ["stopped"])


@pytest.mark.parametrize("started_as", ["a module", "a console script"])
@pytest.mark.parametrize("package", ["swarm", "peers"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_first_imports_ends_it_alike(
    number: Signals, code: int, package: str, started_as: str
) -> None:
    done = importing(number, package, started_as)
    assert (done.wait(HANG_S), *done.communicate()) == (code, "", "\nstopped\n")


def test_a_signal_that_is_ignored_stays_ignored_during_the_first_imports() -> None:
    done = importing(
        signal.SIGINT, "swarm", "a module", lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    out, err = done.communicate(timeout=HANG_S)
    assert (done.returncode, err) == (0, "")
    assert out.startswith("swarm, version")


def importing(
    number: Signals, package: str, started_as: str, first: Callable[[], object] = default_signals
) -> "subprocess.Popen[str]":
    """Start a program, of `SCRIPTS` or a module, and signal it at its first import of a library."""
    home, function = SCRIPTS[package].split(":")
    begin = {
        "a module": f"runpy.run_module('{package}.cli', run_name='__main__', alter_sys=True)",
        "a console script": f"importlib.import_module('{home}').{function}()",
    }
    lines = (
        "import importlib, os, runpy, sys",
        "class Interrupting:",
        "    def find_spec(self, name, *_):",
        "        if name == 'click':",
        f"            os.kill(os.getpid(), {number:d})",
        "sys.meta_path.insert(0, Interrupting())",
        "sys.argv = ['swarm', '--version']",
        begin[started_as],
    )
    return started("\n".join(lines), preexec_fn=first)


def test_after_the_first_signal_a_second_one_ends_it_at_once_to_the_last() -> None:
    """A running thread keeps the interpreter from ending."""
    lines = (
        "import asyncio, threading, time",
        "from swarm.terminal.signals import run",
        "async def work():",
        "    threading.Thread(target=time.sleep, args=(600,)).start()",
        "    print('up')",
        "    await asyncio.Event().wait()",
        "run(work())",
    )
    process = started(program(*lines))
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            assert process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "stopped\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(HANG_S) == -signal.SIGINT
        finally:
            process.kill()


def test_a_signal_in_a_finalizer_is_told_again() -> None:
    lines = (
        "class Late:",
        "    def __del__(self):",
        "        print('up')",
        "        time.sleep(600)",
    )
    code, complaints = ended(started(program(*lines, "Late()", "time.sleep(600)")), signal.SIGTERM)
    assert (code, complaints.split()) == (143, ["stopped"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_it_was_started_to_ignore_stays_ignored(number: Signals) -> None:
    """This is what `nohup` does, and scripts do for background jobs."""
    lines = (
        "import asyncio, os",
        "from swarm.terminal.signals import stop_signals, on_signals, run",
        "async def work():",
        "    told = asyncio.Event()",
        "    with on_signals(stop_signals(), lambda _: told.set()):",
        f"        os.kill(os.getpid(), {number:d})",
        "        await asyncio.sleep(0)",
        "        print('up' if not told.is_set() else 'told')",
        "        await told.wait()",
        "    print('left')",
        "run(work())",
    )
    process = started(program(*lines), preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.read() == "left\n"
        assert process.wait(HANG_S) == 0


def test_a_program_that_loses_its_terminal_still_leaves_in_order() -> None:
    """Writing to a closed terminal fails, and a leaving program may still print."""
    lines = (
        "import asyncio",
        "from swarm.terminal.signals import stop_signals, on_signals, run",
        "async def work():",
        "    told = asyncio.Event()",
        "    with on_signals(stop_signals(), lambda _: told.set()):",
        "        print('up')",
        "        await told.wait()",
        "    print('leaving')",
        "    sys.stderr.write('left')",
        "run(work())",
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-uc", program(*lines)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        # which makes it the session's own terminal
        preexec_fn=lambda: os.close(os.open(os.ttyname(1), os.O_RDWR)),
    )
    os.close(slave)
    assert os.read(master, 2) == b"up"
    os.close(master)
    assert process.wait(HANG_S) == 0


def test_a_signal_that_arrives_in_another_thread_does_not_wait_for_an_event() -> None:
    lines = (
        "import asyncio, os, threading",
        "from swarm.terminal.signals import stop_signals, on_signals, run",
        "def interrupt():",
        "    time.sleep(0.1)  # the main thread most likely waits for events by now",
        "    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)",
        "async def work():",
        "    told = asyncio.Event()",
        "    with on_signals(stop_signals(), lambda _: told.set()):",
        "        threading.Thread(target=interrupt).start()",
        "        asyncio.get_running_loop().call_later(60, os._exit, 9)",
        "        await told.wait()",
        "run(work())",
    )
    assert started(program(*lines)).wait(HANG_S) == 0


async def test_actions_are_nested_and_given_back() -> None:
    told: list[str] = []
    before = {number: signal.getsignal(number) for number in stop_signals()}
    with on_signals((signal.SIGTERM,), lambda _: told.append("outer")):
        with on_signals((signal.SIGTERM,), lambda _: told.append("inner")):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
    assert told == ["inner", "outer"]
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_run_that_no_signal_ends_gives_its_result_or_its_error() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    assert run(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError):
        run(fails())
    before = [signal.getsignal(number) for number in signals.ENDING]
    with stoppable():
        pass
    assert [signal.getsignal(number) for number in signals.ENDING] == before


def test_the_signal_is_found_behind_what_failed_on_its_account() -> None:
    def failing() -> None:
        try:
            raise Stopped(signal.SIGHUP)
        except Stopped:
            os.close(-1)

    with pytest.raises(OSError, match="Bad file") as caught:
        failing()
    assert stopped_by(caught.value) == signal.SIGHUP
    assert stopped_by(KeyboardInterrupt()) == signal.SIGINT
    assert stopped_by(OSError()) is None
