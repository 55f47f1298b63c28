"""What a user sees when something is wrong: one clear sentence, a non-zero exit code, and no waiting."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file

from swarm.demo import TARGET, locate
from swarm.demo.local import LocalSwarm

PATIENCE_S = 10.0  # for an error, once the program is loaded
HANG_S = 60.0
DEAD_NODE = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


@dataclass(frozen=True)
class Ended:
    code: int | None
    out: str
    err: str
    seconds: float


@pytest.fixture(scope="module")
def loading_s() -> float:
    """How long this machine takes, now, to import what `swarm generate` imports."""
    import subprocess

    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import swarm.client"], check=True, timeout=HANG_S)
    return time.monotonic() - started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def half() -> AsyncIterator[LocalSwarm]:
    """A swarm in which nobody serves layers 4 to 7."""
    async with LocalSwarm(TARGET, [(0, 2), (2, 4)]) as swarm:
        yield swarm


@pytest.mark.asyncio(loop_scope="module")
class TestOneSentence:
    """Each failure against a real network, through the real command."""

    async def test_unknown_folder(self, half: LocalSwarm, loading_s: float) -> None:
        ended = await _generate("./no-such-model", half.bootstrap)
        _is_one_sentence(ended, "no-such-model", loading_s)

    async def test_unknown_hub_model(self, half: LocalSwarm, loading_s: float) -> None:
        ended = await _generate("nobody/no-such-model", half.bootstrap, HF_HUB_OFFLINE="1")
        _is_one_sentence(ended, "nobody/no-such-model", loading_s)

    async def test_missing_layers(self, half: LocalSwarm, loading_s: float) -> None:
        ended = await _generate(TARGET, half.bootstrap)
        _is_one_sentence(ended, "nobody serves layers 4:8", loading_s)
        assert "swarm-peer join" in ended.err

    async def test_nobody_serves_the_model(self, half: LocalSwarm, loading_s: float, tmp_path: Path) -> None:
        ended = await _generate(str(_other_weights(tmp_path / "never-heard-of")), half.bootstrap)
        _is_one_sentence(ended, "no peer serves", loading_s)

    async def test_wrong_weights(self, half: LocalSwarm, loading_s: float, tmp_path: Path) -> None:
        ended = await _generate(str(_other_weights(tmp_path / TARGET)), half.bootstrap)
        _is_one_sentence(ended, "other weights", loading_s)

    async def test_prompt_too_long(self, half: LocalSwarm, loading_s: float) -> None:
        ended = await _generate(TARGET, half.bootstrap, prompt="stamps " * 5_000)
        _is_one_sentence(ended, "context ends at", loading_s)

    async def test_no_bootstrap_node_is_known(self, loading_s: float, tmp_path: Path) -> None:
        (tmp_path / "bootstrap.toml").write_text("bootstrap = []\n")
        ended = await _run("generate", TARGET, "Hello", env={"SWARM_CONFIG": str(tmp_path / "bootstrap.toml")})
        _is_one_sentence(ended, "bootstrap", loading_s)

    async def test_no_bootstrap_node_answers(self, loading_s: float) -> None:
        ended = await _generate(TARGET, DEAD_NODE)
        _is_one_sentence(ended, "bootstrap", loading_s)

    async def test_status_says_which_layers_are_missing(self, half: LocalSwarm) -> None:
        ended = await _run("status", "--bootstrap", half.bootstrap, "--network", half.network.name)
        assert ended.code == 0
        assert "4:8" in ended.out
        assert "missing" in ended.out


async def test_a_peer_that_dies_and_that_nobody_replaces_ends_the_generation_with_a_sentence() -> None:
    """With the only peer for layers 4 to 7 killed in the middle, nothing hangs and what was said stays said."""
    async with LocalSwarm(TARGET, [(0, 4), (4, 8)], link_ms=30.0) as swarm:
        process = await asyncio.create_subprocess_exec(
            *_command("generate", TARGET, "Problem: ", "--max-new-tokens", "400", "--network", swarm.network.name),
            *("--bootstrap", swarm.bootstrap, "--link-ms", "30", "--patience", "2"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.read(10), HANG_S)
        assert said
        swarm.peers[1].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, err = await asyncio.wait_for(process.communicate(), HANG_S)
        assert time.monotonic() - killed < PATIENCE_S
        assert process.returncode == 1
        assert "layers 4:8" in err.decode()
        assert "Traceback" not in err.decode()


def _is_one_sentence(ended: Ended, words: str, loading_s: float) -> None:
    assert ended.code == 1, ended
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert ended.seconds - loading_s < PATIENCE_S


def _other_weights(folder: Path) -> Path:
    """The demo target with one weight changed."""
    shutil.copytree(locate(TARGET), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + torch.ones(1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


async def _generate(model: str, bootstrap: str, prompt: str = "Hello", **env: str) -> Ended:
    return await _run("generate", model, prompt, "--bootstrap", bootstrap, "--network", "swarm-demo", env=env)


async def _run(*arguments: str, env: dict[str, str] | None = None) -> Ended:
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *_command(*arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    out, err = await asyncio.wait_for(process.communicate(), HANG_S)
    return Ended(process.returncode, out.decode(), err.decode(), time.monotonic() - started)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "swarm.cli", *arguments]
