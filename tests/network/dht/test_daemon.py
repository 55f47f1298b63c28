"""How long libp2p's daemon is waited for, and for what."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.dht import daemons
from swarm.config import Network
from swarm.errors import DirectoryDown
from swarm.identity import Identity
from swarm.network.dht import daemon
from swarm.network.dht.daemon import PendingCalls, start_daemon, stop_daemon

NOBODY = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"


@pytest.fixture
def allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let daemons start no sooner than this is called, as on a computer that has no time for
    them."""
    allowed = tmp_path / "allowed"
    wait = f'until [ -e "{allowed}" ]; do sleep 0.02; done; exec "$@"'
    launch = daemon.in_own_session
    monkeypatch.setattr(
        daemon, "in_own_session", lambda made: ["sh", "-c", wait, "sh", *launch(made)]
    )
    return allowed.touch


async def test_the_time_of_others_begins_when_the_daemon_listens(
    allow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a busy computer takes others to be silent."""
    within, listened = daemon.within, []

    async def waiting(seconds: float, work: Awaitable[Any]) -> Any:
        listened.append(bool(daemons()))
        return await within(seconds, work)

    starting = asyncio.create_task(
        start_daemon(Identity.generate(), Network("test"), timeout_s=60.0)
    )
    monkeypatch.setattr(daemon, "within", waiting)
    await asyncio.sleep(0.1)  # the process is there, and has no time
    allow()
    await stop_daemon(await starting)
    assert listened[0]


async def test_a_daemon_that_gets_no_time_is_not_taken_for_silent_others(
    allow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "START_TIMEOUT_S", 0.1)
    with pytest.raises(DirectoryDown, match=r"p2pd\) does not listen .* too much to do"):
        await start_daemon(Identity.generate(), Network("test", (NOBODY,)), timeout_s=60.0)
    assert daemons() == []


async def test_the_answer_to_a_call_that_was_given_up_is_dropped() -> None:
    given_up: asyncio.Future[bytes] = asyncio.Future()
    waiting: asyncio.Future[bytes] = asyncio.Future()
    calls = PendingCalls({"given up": given_up, "waiting": waiting})
    given_up.cancel()
    assert "given up" not in calls
    assert "waiting" in calls
    assert "unknown" not in calls


async def test_every_daemon_drops_late_answers() -> None:
    started = await start_daemon(Identity.generate(), Network("test"), timeout_s=60.0)
    try:
        assert isinstance(started._client.control._pending_calls, PendingCalls)
    finally:
        await stop_daemon(started)
