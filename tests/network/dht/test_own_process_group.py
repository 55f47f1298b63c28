"""A program in a session of its own, which never outlives who started it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from helpers.loopback import alive, eventually
from swarm.network.dht.own_process_group import CANNOT_RUN, in_own_session

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STARTER = f"""
import subprocess, sys
from swarm.network.dht.own_process_group import in_own_session
child = subprocess.Popen(in_own_session({SLEEPER!r}), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_it_has_a_session_of_its_own_and_ends_when_its_parent_is_killed() -> None:
    starter = [sys.executable, "-c", STARTER]
    with subprocess.Popen(starter, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert os.getsid(child) == os.getpgid(child) == child != os.getsid(parent.pid)
        parent.kill()
    asyncio.run(eventually(lambda: not alive(child)))


def test_it_is_not_started_for_a_parent_that_has_ended() -> None:
    command = in_own_session(SLEEPER)
    assert command[4] == str(os.getpid())
    command[4] = "1"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (CANNOT_RUN, "", "")


def test_a_program_that_is_not_there_is_named_on_its_output(tmp_path: Path) -> None:
    command = in_own_session([str(tmp_path / "none")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (CANNOT_RUN, "")
    assert done.stdout == f"{tmp_path / 'none'}: No such file or directory\n"


def test_a_signal_to_the_group_of_a_client_leaves_its_daemon_to_it() -> None:
    """What `timeout` and a closed terminal send reaches whole groups: the client still needs its
    daemon to leave."""
    script = """
import asyncio
import signal
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory

async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    network = Network("test")
    async with await Directory.join(Identity.generate(), network, bootstrap_node=True) as directory:
        print(directory._node.daemon._child.pid, flush=True)
        await told.wait()
        print(await directory.models(), flush=True)

asyncio.run(main())
"""
    client = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert client.stdout is not None
    with client.stdout as said:
        daemon = int(said.readline())
        assert os.getpgid(daemon) == daemon
        os.killpg(client.pid, signal.SIGTERM)
        assert said.readline() == "[]\n"
    assert client.wait(60) == 0
    assert not alive(daemon)
