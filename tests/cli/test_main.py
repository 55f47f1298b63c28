"""``swarm`` as a process: quick help, one sentence for every mistake, the right exit codes."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.cli.main import app, guard
from swarm.errors import ChainBroken, NoBootstrap
from swarm.terminal.signals import Stopped

HANG_S = 180
COMMANDS = ("generate", "chat", "status", "bench", "demo", "eval", "completion")
NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


def swarm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "swarm.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False)


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    script = """
import sys
sys.argv = ["swarm", "--help"]
from swarm.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "transformers", "hivemind", "aiohttp", "numpy", "rich"} & set(sys.modules)
    assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


def test_version_is_said() -> None:
    assert "swarm, version" in swarm("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate",), "Missing argument 'MODEL'"),
        (("generate", "model", "prompt", "--window", "many"), "'many' is no number; give auto"),
        (("generate", "model", "prompt", "--logit-bias", "5:1"), "'5:1' is no bias; give ID=NATS"),
        (("generate", "model", "prompt", "--key", "("), "'(' is no regular expression"),
        (("generate", "model", "\udcff"), "not text in this terminal's encoding"),
        (
            ("generate", "", "prompt"),
            "give a checkpoint folder, a GGUF file, a Hugging Face model id, or demo-target",
        ),
        (("demo", "--peers", "9"), "9 is not in the range"),
        (("demo", "--link-ms", "-1"), "-1.0 is not in the range"),
        (("status", "--no-such-option"), "No such option"),
        (("fly",), "No such command 'fly'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_end_with_code_2_and_one_sentence(
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["swarm", *arguments])
    assert guard(app, "swarm") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert words in last


@pytest.mark.parametrize("arguments", [("status",), ("generate", "demo-target", "Hello")])
def test_no_bootstrap_node_is_one_sentence(arguments: tuple[str, ...]) -> None:
    done = swarm(*arguments)
    assert done.returncode == 3
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: No bootstrap node is configured")


@pytest.mark.parametrize("address", ["nonsense", "/ip4/1.2.3.4/tcp/1"])
def test_a_malformed_address_is_one_sentence(address: str) -> None:
    done = swarm("status", "--bootstrap", address)
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert "is not an address such as" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--verify", "lazy"), 2, "the rules are strict"),
        (("--temperature", "-1"), 2, "temperature"),
        (("--top-p", "-1"), 2, "give a number from 0 (the likeliest token) up to 1 (all tokens)"),
        (("--max-new-tokens", "0"), 2, "max_new_tokens = 0 is not possible"),
        (("--network", "Not A Name"), 2, "is not a name of 1 to 32 characters"),
        (
            ("--network-key", "no-such-file"),
            5,
            "cannot read this network key (No such file or directory)",
        ),
        (("--identity", "/proc/none/key"), 5, "/proc/none"),
        (("--members", "no-such-file"), 2, "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", [("generate", "demo-target", "Hello"), ("chat", "demo-target")])
def test_what_cannot_be_is_said_before_anything_is_loaded(
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["swarm", *command, "--bootstrap", NOBODY, *arguments])
    assert guard(app, "swarm") == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert words in said


def test_two_failures_at_once_are_one_sentence(tmp_path: Path) -> None:
    """Neither the model nor a bootstrap node exists: only the model's error is printed."""
    done = swarm("generate", str(tmp_path / "none"), "Hello", "--bootstrap", NOBODY)
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_errors_become_sentences_and_signals_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> int:
        def command(**_: object) -> None:
            raise error

        return guard(command, "swarm")

    assert raising(NoBootstrap()) == 3
    assert capsys.readouterr().err.startswith("error: No bootstrap")
    assert raising(ChainBroken("12D3KooW", (0, 4), "\x1b[2Jgone\nfor good")) == 4
    assert "failed: [2Jgone for good; run" in capsys.readouterr().err  # strangers say such things
    assert raising(PermissionError(13, "Permission denied", "/nobody/key")) == 5
    assert capsys.readouterr().err.startswith("error: /nobody/key: Permission denied; see that")
    assert raising(KeyboardInterrupt()) == 130
    assert raising(asyncio.CancelledError()) == 130
    assert raising(Stopped(signal.SIGTERM)) == 143
    assert raising(Stopped(signal.SIGHUP)) == 129


def test_a_fault_of_ours_is_one_sentence_and_told_in_full_to_whoever_asks(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def command(**_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    with caplog.at_level("DEBUG", logger="swarm"):
        assert guard(command, "swarm") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ZeroDivisionError: by zero; this is a bug: please report")
    assert "-v" in said
    assert "Traceback" in caplog.text


def test_a_fault_of_ours_is_told_in_full_by_the_module_too() -> None:
    script = """
import runpy, sys
from swarm.terminal import console
console.settle_colours = lambda: 1 // 0
sys.argv = ["swarm", "-v", "status"]
runpy.run_module("swarm.cli", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 1
    assert "DEBUG swarm.cli.main: where it failed\nTraceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ZeroDivisionError")


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    script = """
import sys
import click
from swarm.cli.main import guard
@click.command()
def talk():
    while True:
        click.echo("x" * 999)
sys.exit(guard(talk, "talk"))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(HANG_S) == 1
