"""Run the commands and the Python of all pages on a small swarm of processes."""

import ast
import asyncio
import builtins
import contextlib
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest

import peers.cli
import swarm.cli.main
from docs import shell
from docs.markdown import PAGES, ROOT, Block, blocks, title
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import NETWORK, LocalSwarm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATIENCE_S = 180.0  # a few words of shell may start several programs
MAIN = {"swarm": swarm.cli.main.main, "swarm-peer": peers.cli.main}
NAMING = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler
SOME_ADDRESS = "/ip4/203.0.113.5/tcp/31337/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


@pytest.fixture(scope="module")
def bootstrap(warmly: None) -> Iterator[str]:
    """Start a swarm of real processes for all pages, and return its bootstrap node's address."""
    with _in_background(lambda: LocalSwarm(locate(TARGET), [(0, 4), (4, 8)])) as local:
        yield local.bootstrap


@pytest.fixture(scope="module")
def gateway(
    warmly: None, bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Start a gateway in front of it as a process, and return host and port."""
    command = [
        sys.executable,
        "-m",
        "swarm.cli",
        "serve",
        TARGET,
        "--draft",
        DRAFT,
        "--port",
        "0",
        "--json",
    ]
    env = {**os.environ, **_settings(bootstrap), "SWARM_HOME": str(tmp_path_factory.mktemp("home"))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline() or "{}")
        assert "url" in said, "the gateway did not start"
        yield urlsplit(said["url"]).netloc
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def _in_background(make: Callable[[], LocalSwarm]) -> Iterator[LocalSwarm]:
    """Run on an event loop of its own, since the commands need this thread's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        local: LocalSwarm = wait(_made(make))
        try:
            yield wait(local.__aenter__())
        finally:
            wait(local.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _made(make: Callable[[], LocalSwarm]) -> LocalSwarm:
    return make()


def _settings(bootstrap: str) -> dict[str, str]:
    return {"SWARM_NETWORK": NETWORK, "SWARM_BOOTSTRAP": bootstrap, "PYTHONPATH": str(ROOT)}


def _to_run(page: Path) -> list[Block]:
    """Return commands, and whole Python; parts of Python are only compiled."""
    return [
        block
        for block in blocks(page)
        if not block.not_run
        and (shell.is_shell(block) or (block.language == "python" and _is_whole(block.content)))
    ]


def _is_whole(source: str) -> bool:
    """Tell whether Python makes or imports every name that it uses."""
    nodes = list(ast.walk(ast.parse(source)))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    made = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    made |= {node.name for node in nodes if isinstance(node, NAMING)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    made |= {
        (each.asname or each.name).partition(".")[0] for node in imports for each in node.names
    }
    return used <= made | vars(builtins).keys()


@pytest.mark.parametrize("page", [page for page in PAGES if _to_run(page)], ids=title)
def test_what_a_page_says_works(
    page: Path,
    bootstrap: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Run all blocks in order, in a copy of a checkout: each finds the files of those before."""
    programs, checkout = tmp_path / "bin", tmp_path / "checkout"
    programs.mkdir()
    checkout.mkdir()
    for name, module in (("swarm", "swarm.cli"), ("swarm-peer", "peers.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    visible = (path for path in ROOT.iterdir() if not path.name.startswith("."))
    for path in (*visible, Path(locate(TARGET)), Path(locate(DRAFT))):
        (checkout / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in _settings(bootstrap).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(checkout)
    asks_gateway = any(
        address in block.content for block in _to_run(page) for address in shell.GATEWAY
    )
    at = request.getfixturevalue("gateway") if asks_gateway else shell.GATEWAY[0]
    for block in _to_run(page):
        try:
            if block.language == "python":
                _run_python(shell.filled(block.content, bootstrap, at), str(block))
            else:
                for line in shell.lines(block):
                    _run_line(shell.filled(line, bootstrap, at), monkeypatch)
        except (Exception, SystemExit) as error:
            raise AssertionError(
                f"{block}: {error!r}\n{block.content}\n{capfd.readouterr().err[-2000:]}"
            ) from error


def _run_line(line: str, environment: pytest.MonkeyPatch) -> None:
    settings, argv = shell.settings_and_words(line)
    told = [
        each[0] for each in shell.programs(line) if each[0] not in shell.RUN | shell.OURS.keys()
    ]
    assert not told, (
        f"{told[0]} is not run in tests: say why in a comment before the block (see"
        f" {shell.__file__})"
    )
    if shell.lasts(line):
        return  # `test_our_programs_take_these_options` looks at it
    if argv[0] == "export":
        for name, _, value in (each.partition("=") for each in argv[1:]):
            environment.setenv(name, value)
    elif shell.is_simple(line) and (
        argv[0] in shell.OURS or (argv[0] == "python" and argv[1].endswith(".py"))
    ):
        # Here, since loading PyTorch takes longer than most commands.
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", argv if argv[0] in shell.OURS else argv[1:])
            if argv[0] in shell.OURS:
                with pytest.raises(SystemExit) as left:
                    MAIN[argv[0]]()
                assert not left.value.code, line
            else:
                runpy.run_path(argv[1], run_name="__main__")
    else:
        strict = line.replace("curl ", "curl --silent --show-error --fail-with-body ")
        whole = ["bash", "-euo", "pipefail", "-c", strict]
        subprocess.run(whole, check=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)


def _run_python(source: str, where: str) -> None:
    """Run Python with `await` outside of functions, as in the documentation."""
    whole = compile(source, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(whole, {"__name__": "__main__"})
    if outcome is not None:
        asyncio.run(asyncio.wait_for(outcome, PATIENCE_S))


# What needs no swarm.


def _commands_of_ours() -> Iterator[Any]:
    for block in shell.blocks_of_commands():
        for line in shell.lines(block):
            for argv in shell.programs(shell.filled(line, SOME_ADDRESS, shell.GATEWAY[0])):
                if argv[0] in shell.OURS:
                    yield pytest.param(argv, id=f"{block}-{shell.name_of(argv)}")


@pytest.mark.parametrize("argv", list(_commands_of_ours()))
def test_our_programs_take_these_options(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check also commands that are not run, or that run for ever."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(click.exceptions.Exit):  # --help, --version
        shell.check(argv)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_commands_that_a_page_mentions_exist(page: Path) -> None:
    assert [(argv, wrong) for argv in shell.mentioned(page) if (wrong := shell.unknown(argv))] == []


@pytest.mark.parametrize("block", list(shell.blocks_of_commands()), ids=str)
def test_targets_of_make_and_files_exist(block: Block) -> None:
    for line in shell.lines(block):
        for argv in shell.programs(line):
            if argv[0] == "make":
                targets = [word for word in argv[1:] if "=" not in word]
                assert all(
                    f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets
                ), line
            if argv[0] in ("python", "python3", "pytest"):
                assert all(
                    (ROOT / word).exists()
                    for word in argv[1:]
                    if word.startswith(("tests/", "docs/"))
                ), line


READERS: dict[str, Callable[[str], object]] = {
    "python": lambda source: compile(source, "a page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),
    "json": json.loads,
    "toml": tomllib.loads,
}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_what_a_page_calls_python_json_or_toml_is_that(page: Path) -> None:
    for block in blocks(page):
        READERS.get(block.language, str)(block.content)
