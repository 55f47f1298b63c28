"""Clients of other projects work unchanged, set up as docs/clients.md says.

A program ``check_NAME`` uses one client; its functions are what that client is asked to do. It
imports the example of the page that begins by importing NAME as `docs_snippet`. Clients of
packages.toml run in environments of their own, which `make clients` installs; others are among what
our tests need anyway.
"""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from docs.markdown import ROOT, blocks

from helpers.client_packages import SETTING, read_clients
from helpers.gateway_in_process import gateway_over
from helpers.programs import output_of
from helpers.swarm_in_process import Material
from swarm.gateway import requests

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "clients.md"
DOCUMENTED = "http://127.0.0.1:8000"
CLIENTS = read_clients()
PYTHON = sorted(path.stem.removeprefix("check_") for path in HERE.glob("check_*.py"))
PATIENCE_S = 400.0  # a library may be imported for half a minute on a busy machine
# Of a chat that sets no limit, as the examples do: sampled, a text of the demo may be long.
TOKENS = 256
# No client asks the internet for anything.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
BORROWED = {"httpx": "openai"}  # it is set up by no lines of its own

on_one_loop = pytest.mark.asyncio(loop_scope="module")


def _marked(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.clients if name in CLIENTS else ())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(demo: Material) -> AsyncIterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "CHAT_TOKENS", TOKENS)
        async with gateway_over(demo) as served:
            yield served.url


@on_one_loop
@pytest.mark.parametrize("name", [*map(_marked, PYTHON)])
async def test_a_python_client_works(name: str, url: str, tmp_path: Path) -> None:
    python = str(_runner(name)) if name in CLIENTS else sys.executable
    snippet = _snippet("python", rf"(from|import) {BORROWED.get(name, name)}\b")
    (tmp_path / "docs_snippet.py").write_text(snippet.replace(DOCUMENTED, url))
    program = HERE / f"check_{name}.py"
    await _check(tmp_path, python, f"{HERE / 'run.py'}", f"{program}")


@on_one_loop
@pytest.mark.clients
async def test_a_client_on_node_works(url: str, tmp_path: Path) -> None:
    node = shutil.which("node") or pytest.skip("Node is not installed")
    (tmp_path / "node_modules").symlink_to(_runner("ai"))
    snippet = _snippet("js", "import .* from .@ai-sdk/")
    (tmp_path / "docs_snippet.mjs").write_text(snippet.replace(DOCUMENTED, url))
    for name in ("run.mjs", "check_ai.mjs"):
        shutil.copy(HERE / name, tmp_path)
    await _check(tmp_path, node, "run.mjs", "check_ai.mjs")


def test_every_example_that_is_left_to_these_programs_has_one() -> None:
    left = [block for block in blocks(PAGE) if "tests/gateway/clients" in block.not_run]
    python = {re.split(r"\W", block.content)[1] for block in left if block.language == "python"}
    assert python == CLIENTS.keys() - {"ai"} <= set(PYTHON)
    assert [block.language for block in left].count("js") == 1


def _runner(name: str) -> Path:
    """Return what runs a client's programs, or skip the test."""
    folder = os.environ.get(SETTING)
    if not folder:
        pytest.skip(f"{SETTING} names no folder; `make clients` makes one")
    if not CLIENTS[name].is_in(Path(folder)):
        pytest.skip(f"{folder} has no {name} as packages.toml has it; run `make clients`")
    return CLIENTS[name].runner(Path(folder))


def _snippet(language: str, beginning: str) -> str:
    """Return the page's example that begins so."""
    (found,) = (
        block.content
        for block in blocks(PAGE)
        if block.language == language and re.match(beginning, block.content)
    )
    return found


async def _check(folder: Path, *command: str) -> None:
    """Run a program in a folder. Fail with the traces of its functions that failed."""
    report = folder / "failures.json"
    process = await asyncio.create_subprocess_exec(
        *command,
        f"{report}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, **OFFLINE, "HOME": f"{folder}", "PYTHONPATH": f"{folder}"},
    )
    out = await output_of(process, PATIENCE_S)
    assert process.returncode == 0, out.decode()
    failures: dict[str, str] = json.loads(report.read_text())
    assert not failures, "\n".join(f"{name}: {trace}" for name, trace in failures.items())
