"""A program that starts warm behaves as one that starts cold."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warm import WarmPopen

from helpers.loopback import alive

HANG_S = 180.0
SWARM = (sys.executable, "-m", "swarm.cli")
NODE = (
    sys.executable,
    "-m",
    "peers.cli",
    "bootstrap",
    "--host",
    "127.0.0.1",
    "--port",
    "0",
    "--ephemeral",
)

pytestmark = pytest.mark.usefixtures("warmly")


def test_output_exit_code_folder_and_environment(tmp_path: Path) -> None:
    (tmp_path / "bootstrap.toml").write_text('network = "not a name"\n')
    done = subprocess.run(
        [*SWARM, "status"],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env={**os.environ, "SWARM_CONFIG": "bootstrap.toml"},
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "not a name" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert subprocess.check_output([*SWARM, "--version"], text=True).startswith("swarm, version")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("alone", [True, False])
def test_it_is_a_child_of_ours(number: signal.Signals, alone: bool) -> None:
    with subprocess.Popen(NODE, stdout=subprocess.PIPE, start_new_session=alone) as process:
        assert isinstance(process, WarmPopen)
        assert process.is_warm
        assert process.stdout is not None
        assert process.stdout.readline()
        assert os.getpgid(process.pid) == (process.pid if alone else os.getpgrp())
        process.send_signal(number)
        assert process.wait(HANG_S) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert not alive(process.pid)


def test_what_libraries_have_looked_at_is_not_changed_behind_their_backs() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with subprocess.Popen([*SWARM, "--version"], stdout=subprocess.DEVNULL, env=env) as process:
        assert isinstance(process, WarmPopen)
        assert not process.is_warm
    assert process.returncode == 0
