"""The errors that a user sees: one clear sentence, a non-zero exit code, and no waiting."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file

from helpers.local_swarm import add_peer
from swarm.demo import TARGET, locate
from swarm.demo.local import LocalSwarm

HANG_S = 300.0  # for a command to end
# a loop a token, and never the end
ENDLESS = ("--window", "0", "--max-new-tokens", "400", "--logit-bias", "2=-100")
DEAD_NODE = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"

pytestmark = pytest.mark.usefixtures("warmly")


@dataclass(frozen=True)
class Ended:
    code: int | None
    out: str
    err: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def half(warmly: None) -> AsyncIterator[LocalSwarm]:
    """Start a swarm in which no peer serves layers 4 to 7."""
    async with LocalSwarm(TARGET, [(0, 2), (2, 4)]) as swarm:
        yield swarm


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


WORDS = {
    "unknown folder": (5, "no-such-model"),
    "unknown hub model": (5, "nobody/no-such-model"),
    "missing layers": (4, "no peer serves layers 4:8"),
    "nobody serves the model": (4, "no peer serves"),
    "other weights": (4, "other weights"),
    "prompt too long": (2, "context ends at"),
    "no bootstrap node is known": (3, "bootstrap"),
    "no bootstrap node answers": (3, "bootstrap"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endings(
    half: LocalSwarm,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch_module: pytest.MonkeyPatch,
) -> dict[str, Ended]:
    """Run each failure against a real network, through the real command.

    Two at a time: most of the time goes into imports.
    """
    folder = tmp_path_factory.mktemp("models")
    (folder / "bootstrap.toml").write_text("bootstrap = []\n")
    monkeypatch_module.setenv("SWARM_HOME", str(folder / "home"))
    runs = {
        "unknown folder": _generate("./no-such-model", half.bootstrap),
        "unknown hub model": _generate("nobody/no-such-model", half.bootstrap, HF_HUB_OFFLINE="1"),
        "missing layers": _generate(TARGET, half.bootstrap),
        "nobody serves the model": _generate(
            str(_other_weights(folder / "never-heard-of")), half.bootstrap
        ),
        "other weights": _generate(str(_other_weights(folder / TARGET)), half.bootstrap),
        "prompt too long": _generate(TARGET, half.bootstrap, prompt="stamps " * 5_000),
        "no bootstrap node is known": _run(
            "generate", TARGET, "Hi", SWARM_CONFIG=str(folder / "bootstrap.toml")
        ),
        "no bootstrap node answers": _generate(
            TARGET, DEAD_NODE, SWARM_HOME=str(folder / "stranger")
        ),  # others remember nodes
    }
    two = asyncio.Semaphore(2)

    async def in_turn(run: Coroutine[Any, Any, Ended]) -> Ended:
        async with two:
            return await run

    return dict(zip(runs, await asyncio.gather(*map(in_turn, runs.values())), strict=True))


@pytest.mark.parametrize("failure", WORDS)
def test_a_failure_is_told_in_one_sentence_and_by_the_exit_code(
    failure: str, endings: dict[str, Ended]
) -> None:
    ended, (code, words) = endings[failure], WORDS[failure]
    assert ended.code == code, ended
    assert words in ended.err, ended
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err


def test_missing_layers_can_be_helped(endings: dict[str, Ended]) -> None:
    assert "swarm-peer join" in endings["missing layers"].err


@pytest.mark.asyncio(loop_scope="module")
async def test_status_says_which_layers_are_missing(half: LocalSwarm) -> None:
    ended = await _run("status", "--bootstrap", half.bootstrap, "--network", half.network.name)
    assert ended.code == 0
    assert "4:8" in ended.out
    assert "no peer serves layers 4:8" in ended.out


@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_dies_without_a_successor_ends_the_generation(half: LocalSwarm) -> None:
    """The only peer for layers 4 to 7 joins and is killed: nothing hangs, and the text stays."""
    only = await add_peer(half, 4, 8)
    process = await asyncio.create_subprocess_exec(
        *_command("generate", TARGET, "Problem: ", *ENDLESS, "--network", half.network.name),
        *("--bootstrap", half.bootstrap, "--link-ms", "30", "--patience", "2"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    said = await asyncio.wait_for(process.stdout.read(10), HANG_S)
    assert said
    only.send_signal(signal.SIGKILL)
    _, err = await asyncio.wait_for(process.communicate(), HANG_S)
    assert process.returncode == 4
    assert "layers 4:8" in err.decode()
    assert "Traceback" not in err.decode()


def _other_weights(folder: Path) -> Path:
    """Save the demo target with one weight changed."""
    shutil.copytree(locate(TARGET), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + torch.ones(1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


async def _generate(model: str, bootstrap: str, prompt: str = "Hello", **env: str) -> Ended:
    return await _run(
        "generate", model, prompt, "--bootstrap", bootstrap, "--network", "swarm-demo", **env
    )


async def _run(*arguments: str, **env: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *_command(*arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )
    out, err = await asyncio.wait_for(process.communicate(), HANG_S)
    return Ended(process.returncode, out.decode(), err.decode())


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "swarm.cli", *arguments]
