"""A swarm of processes on this machine, which ends however its starter ends."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from helpers.local_swarm import add_peer
from helpers.loopback import alive, children, eventually, kill, soon, tiny_checkpoint
from helpers.models import LAYERS
from swarm.client.status import look
from swarm.demo import local
from swarm.demo.local import LocalSwarm, NotStarted, ProcessFailed, even_spans
from swarm.errors import ExitCode

pytestmark = pytest.mark.usefixtures("warmly")


@pytest.fixture(autouse=True)
async def _clean() -> AsyncIterator[None]:
    before = children()
    yield
    left = {pid: command for pid, command in children().items() if pid not in before}
    kill(left)
    assert left == {}


@pytest.fixture
def model(tmp_path: Path) -> str:
    tiny_checkpoint(tmp_path / "tiny")
    return str(tmp_path / "tiny")


async def test_peers_serve_until_the_swarm_is_left(model: str) -> None:
    async with LocalSwarm(model, [(0, 2)]) as swarm:
        added = await add_peer(swarm, 2, LAYERS)
        (report,) = await soon(look(swarm.network))
        assert [peer.layers for peer in report.peers] == [(0, 2), (2, LAYERS)]
        assert all(peer.rtt_ms is not None for peer in report.peers)
        assert report.missing == ()
        assert swarm.peers[1] is added
        started = children()
        assert len(started) == 6  # three processes of ours, and a daemon for each
    assert [process.returncode for process in swarm.peers] == [0, 0]
    assert not any(map(alive, started))


async def test_an_error_inside_ends_all_processes(model: str) -> None:
    started: dict[int, str] = {}

    async def fail_inside() -> None:
        async with LocalSwarm(model, []):
            started.update(children())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()
    assert len(started) == 2
    assert not any(map(alive, started))


async def test_a_peer_that_cannot_start_is_named_and_the_others_ended(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed) as caught:
        async with LocalSwarm(str(tmp_path / "nothing"), [(0, 1)]):
            raise AssertionError("it did not start")
    assert caught.value.code == ExitCode.LOCAL
    assert "was not found" in str(caught.value)
    assert "--layers 0:1" in str(caught.value)


async def test_a_swarm_that_is_not_up_in_time_is_an_error(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "START_TIMEOUT_S", 0.1)
    with pytest.raises(NotStarted, match=r"0\.1 s"):
        async with LocalSwarm(model, [(0, 1)]):
            raise AssertionError("it did not start")


async def test_a_process_that_does_not_leave_is_killed(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "STOP_TIMEOUT_S", 0.1)
    async with LocalSwarm(model, []) as swarm:
        process = swarm._processes[0].process
        process.send_signal(signal.SIGSTOP)
    assert process.returncode == -signal.SIGKILL
    await eventually(lambda: not children())


async def test_processes_end_when_who_started_them_is_gone() -> None:
    script = """
import asyncio
from swarm.demo.local import LocalSwarm
async def main():
    async with LocalSwarm("no model is needed", []):
        print("up", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await soon(parent.stdout.readline()) == b"up\n"
    started = children(parent.pid)
    assert len(started) == 2
    parent.kill()
    await soon(parent.wait())
    try:
        await eventually(lambda: not any(map(alive, started)))
    finally:
        kill({pid: command for pid, command in started.items() if alive(pid)})


def test_spans_are_even_and_cover_all_layers() -> None:
    assert even_spans(8, 4) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert even_spans(8, 3) == [(0, 2), (2, 5), (5, 8)]
    assert even_spans(8, 8) == [(i, i + 1) for i in range(8)]
