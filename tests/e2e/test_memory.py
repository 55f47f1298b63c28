"""A peer in a control group with little memory takes what it may, and survives."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.loopback import children, kill
from helpers.models import Architecture
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory

LAYERS = 12
LIMIT_BYTES = 1100 << 20  # what a peer takes before it has any layers is half of it
GROUPS = Path("/sys/fs/cgroup")
START_S = 300.0


@pytest.fixture
def group() -> Iterator[Path]:
    """Make a control group with the limit, of either version."""
    name = f"swarm-test-{os.getpid()}"
    for folder, limit in (
        (GROUPS / "memory" / name, "memory.limit_in_bytes"),
        (GROUPS / name, "memory.max"),
    ):
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit).write_text(str(LIMIT_BYTES))
            yield folder
            return
        except OSError:
            continue
        finally:
            folder.rmdir()
    pytest.skip("no control group with a limit of memory can be made here")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a checkpoint whose layers take 54 MB each."""
    folder = tmp_path_factory.mktemp("models") / "heavy"
    sizes = {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    settings = {
        **Architecture("llama").settings,
        "vocab_size": 97,
        "num_hidden_layers": LAYERS,
        **sizes,
    }
    config = AutoConfig.for_model("llama", max_position_embeddings=256, **settings)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


async def joined(group: Path, folder: Path, bootstrap: Directory) -> asyncio.subprocess.Process:
    """Run `swarm-peer join` inside the group."""
    command = [
        sys.executable,
        "-m",
        "peers.cli",
        "join",
        str(folder),
        "--bootstrap",
        bootstrap.addresses[0],
    ]
    where = [
        "--host",
        "127.0.0.1",
        "--network",
        "test",
        "--ephemeral",
        "--threads",
        "1",
        "--dtype",
        "float32",  # on any CPU
        "--until-eof",
    ]
    return await asyncio.create_subprocess_exec(
        *(
            "sh",
            "-c",
            f'echo $$ > {group}/cgroup.procs && exec "$@"',
            "sh",
            *command,
            *where,
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


async def test_a_peer_takes_what_it_may(group: Path, heavy: Path) -> None:
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as bootstrap:
        process = await joined(group, heavy, bootstrap)
        try:
            assert process.stdout is not None
            said = ""
            while "serving layers" not in said:
                line = await asyncio.wait_for(process.stdout.readline(), START_S)
                assert line, "it ended"
                said += line.decode()
            fit = int(said.split(" fit here")[0].split()[-1])
            assert 0 < fit < LAYERS
            print(f"{fit} layers of {LAYERS}: {said}")
            process.terminate()
            _, err = await asyncio.wait_for(process.communicate(), START_S)
            assert (process.returncode, err.decode()) == (0, "")
        finally:
            kill(children(process.pid) | ({process.pid: ""} if process.returncode is None else {}))
            await process.wait()
