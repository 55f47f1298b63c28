"""A peer's whole life in this process, with a real bootstrap node."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import LAYERS
from support import eventually, soon, tiny_checkpoint

from peers import host
from peers.host import Options, serve
from peers.listener import CannotListen
from swarm.config import Network
from swarm.errors import ConfigError, NoBootstrap, SpanError, SwarmError
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.network.dialer import Dialer
from swarm.network.directory import Directory
from swarm.network.discovery import Connections
from swarm.network.tasks import end


@pytest.fixture
async def bootstrap() -> AsyncIterator[Directory]:
    async with await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True) as directory:
        yield directory


def options(checkpoint: Checkpoint, bootstrap: Directory | None = None, **changes: Any) -> Options:
    asked = Options(
        model=str(checkpoint._source.path),
        layers=(1, 3),
        network=Network("test", bootstrap.addresses if bootstrap else ()),
        key_file=None,
        host="127.0.0.1",
        port=0,
        announce=None,
        device=torch.device("cpu"),
        dtype=None,
        cache_tokens=100,
    )
    return replace(asked, **changes)


async def test_a_peer_is_found_and_answers_until_it_is_stopped(tiny: Checkpoint, bootstrap: Directory) -> None:
    said: list[str] = []
    progress: list[tuple[int, int]] = []
    stop = asyncio.Event()
    living = asyncio.create_task(
        serve(options(tiny, bootstrap), stop, said.append, lambda done, total: progress.append((done, total)))
    )
    await eventually(lambda: bool(said) or living.done())
    # Whoever reads that it serves can find it.
    (record,) = await bootstrap.peers(tiny.fingerprint, LAYERS)
    assert (record.first_layer, record.last_layer, record.free_cache_tokens) == (1, 3, 100)
    assert record.tokens_per_second > 0
    assert record.peer_id in said[0]
    assert progress[-1][0] == progress[-1][1] > 0

    dialer = Dialer()
    connections = Connections(dialer)
    reached = await soon(connections.reach([record]))
    assert list(reached) == [record.peer_id]

    stop.set()
    await soon(living)
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []
    assert await bootstrap.models() == []
    await eventually(lambda: reached[record.peer_id].closed)
    await connections.close()
    await dialer.close()


async def test_a_cancelled_peer_withdraws_too(tiny: Checkpoint, bootstrap: Directory) -> None:
    said: list[str] = []
    living = asyncio.create_task(serve(options(tiny, bootstrap), asyncio.Event(), said.append))
    await eventually(lambda: bool(said) or living.done())
    await soon(end(living))
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def test_a_stop_while_loading_ends_it(tiny: Checkpoint) -> None:
    stop = asyncio.Event()
    said: list[str] = []
    # It needs no network, for it never comes so far.
    await soon(serve(options(tiny), stop, said.append, lambda *_: stop.set()))
    assert said == []


async def test_a_peer_whose_compute_thread_dies_does_not_go_on(
    tiny: Checkpoint, bootstrap: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(host.Scheduler, "run", die)
    with pytest.raises(ZeroDivisionError):
        await soon(serve(options(tiny, bootstrap), asyncio.Event(), lambda _: None))
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def failure(asked: Options) -> SwarmError:
    with pytest.raises(SwarmError) as caught:
        await soon(serve(asked, asyncio.Event(), lambda _: None))
    assert "\n" not in str(caught.value)
    return caught.value


async def test_a_taken_port_is_said(tiny: Checkpoint) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        error = await failure(options(tiny, port=taken.getsockname()[1]))
        assert isinstance(error, CannotListen)
        assert "--port" in str(error)


async def test_layers_out_of_range_are_said(tiny: Checkpoint) -> None:
    error = await failure(options(tiny, layers=(2, LAYERS + 1)))
    assert isinstance(error, SpanError)
    assert f"[0, {LAYERS})" in str(error)


async def test_no_bootstrap_node_is_said(tiny: Checkpoint) -> None:
    assert isinstance(await failure(options(tiny)), NoBootstrap)


async def test_a_name_that_records_cannot_carry_is_said(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "my model")
    error = await failure(options(checkpoint, model=str(tmp_path / "my model")))
    assert isinstance(error, ConfigError)
    assert "my model" in str(error)
