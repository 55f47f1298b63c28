"""A peer's whole life in this process, with a real bootstrap node."""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.loopback import (
    PATIENCE_S,
    ask,
    eventually,
    new_member,
    opening,
    session_id,
    soon,
    tiny_checkpoint,
)
from helpers.models import LAYERS
from peers.access.control import AccessControl
from peers.compute import memory
from peers.compute.memory import DoesNotFit
from peers.compute.scheduler import Scheduler
from peers.events import PeerEvent
from peers.options import PeerOptions
from peers.placement import block_selection
from peers.server import serve, tell_refusals
from swarm.config import Network
from swarm.errors import CannotListen, ConfigError, NoBootstrap, SpanError, SwarmError
from swarm.identity import Identity
from swarm.keylock import KeyInUse
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import INT8
from swarm.model.span import Span
from swarm.network.dht.directory import Directory
from swarm.network.dht.records import PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections
from swarm.util.tasks import end
from swarm.wire.messages import Close, Opened


@pytest.fixture
async def bootstrap() -> AsyncIterator[Directory]:
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as directory:
        yield directory


def options(
    checkpoint: Checkpoint, bootstrap: Directory | None = None, **changes: Any
) -> PeerOptions:
    asked = PeerOptions(
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


async def test_a_peer_is_found_and_answers_until_it_is_stopped(
    tiny: Checkpoint, bootstrap: Directory
) -> None:
    said: list[PeerEvent] = []
    progress: list[tuple[int, int]] = []
    stop = asyncio.Event()
    living = asyncio.create_task(
        serve(
            options(tiny, bootstrap),
            stop,
            said.append,
            lambda done, total: progress.append((done, total)),
        )
    )
    await eventually(lambda: bool(said) or living.done())
    # Whoever reads that it serves can find it.
    (record,) = await bootstrap.peers(tiny.fingerprint, LAYERS)
    assert (record.first_layer, record.last_layer, record.free_cache_tokens) == (1, 3, 100)
    assert record.tokens_per_second > 0
    assert record.peer_id in said[0].sentence
    assert (said[0].event, said[0].facts["peer_id"], said[0].facts["layers"]) == (
        "serving",
        record.peer_id,
        (1, 3),
    )
    assert progress[-1][0] == progress[-1][1] > 0

    dialer = Dialer(new_member())
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


async def test_a_peer_with_quantized_weights_says_so(
    tiny: Checkpoint, bootstrap: Directory
) -> None:
    pytest.importorskip(
        "torchao", reason="quantized weights are an extra: pip install 'swarm[quant]'"
    )
    async with living(options(tiny, bootstrap, quantization=INT8)) as said:
        int8 = Checkpoint.open(str(tiny._source.path), INT8)
        (record,) = await bootstrap.peers(int8.fingerprint, LAYERS)
        assert (record.model, record.dtype) == ("tiny-int8", "float32")
        assert "of tiny-int8" in said[0].sentence
        assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def test_real_layers_are_never_scripted(tiny: Checkpoint, bootstrap: Directory) -> None:
    with pytest.raises(ConfigError) as caught:
        await soon(serve(options(tiny, bootstrap, scripted=True), asyncio.Event(), lambda _: None))
    assert caught.value.field == "--scripted"
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def test_a_cancelled_peer_withdraws_too(tiny: Checkpoint, bootstrap: Directory) -> None:
    said: list[PeerEvent] = []
    living = asyncio.create_task(serve(options(tiny, bootstrap), asyncio.Event(), said.append))
    await eventually(lambda: bool(said) or living.done())
    await soon(end(living))
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def test_a_stop_while_loading_ends_it(tiny: Checkpoint, bootstrap: Directory) -> None:
    stop = asyncio.Event()
    said: list[PeerEvent] = []
    loop = asyncio.get_running_loop()
    await soon(
        serve(
            options(tiny, bootstrap),
            stop,
            said.append,
            lambda *_: loop.call_soon_threadsafe(stop.set),
        )
    )
    assert not any(news.event == "serving" for news in said)
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def test_layers_are_announced_before_they_are_loaded(
    tiny: Checkpoint, bootstrap: Directory
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    seen: list[PeerRecord] = []

    def look(done: int, total: int) -> None:  # in the thread that loads
        if not seen:
            found = asyncio.run_coroutine_threadsafe(
                bootstrap.peers(tiny.fingerprint, LAYERS), loop
            )
            seen.extend(found.result(PATIENCE_S))
            loop.call_soon_threadsafe(stop.set)

    await soon(serve(options(tiny, bootstrap), stop, lambda _: None, look))
    assert [(record.first_layer, record.last_layer, record.state) for record in seen] == [
        (1, 3, "joining")
    ]


@asynccontextmanager
async def living(asked: PeerOptions) -> AsyncIterator[list[PeerEvent]]:
    """A peer, and what it says, from when it serves."""
    said: list[PeerEvent] = []
    life = asyncio.create_task(serve(asked, asyncio.Event(), said.append))
    try:
        await eventually(lambda: any(news.event == "serving" for news in said) or life.done())
        yield said
    finally:
        await end(life)


def served(said: list[PeerEvent]) -> tuple[int, int]:
    """The layers that a peer has said last that it serves."""
    layers: tuple[int, int] = [news for news in said if news.event == "serving"][-1].facts["layers"]
    return layers


def spans_in_memory() -> int:
    gc.collect()
    return sum(type(each) is Span for each in gc.get_objects())


async def test_peers_without_layers_find_those_that_are_missing(
    tiny: Checkpoint, bootstrap: Directory
) -> None:
    free = options(tiny, bootstrap, layers=None, max_layers=LAYERS // 2)
    async with living(free) as one, living(free) as two:
        assert {served(one), served(two)} == {(0, 2), (2, 4)}
        assert "which the swarm needs most; 2 fit here" in one[0].sentence
        found = await bootstrap.peers(tiny.fingerprint, LAYERS)
        assert [record.state for record in found] == ["online"] * 2


@pytest.mark.parametrize("room_for_both", [True, False])
async def test_a_peer_moves_to_layers_that_have_gone_missing(
    tiny: Checkpoint, bootstrap: Directory, monkeypatch: pytest.MonkeyPatch, room_for_both: bool
) -> None:
    monkeypatch.setattr(block_selection, "LOOK_EVERY_S", 0.5)
    monkeypatch.setattr(block_selection, "CONFIRM_PAUSE_S", 0.2)
    monkeypatch.setattr(memory.MemoryBudget, "takes_also", lambda *_: room_for_both)
    free = options(tiny, bootstrap, layers=None, max_layers=2)
    spans = spans_in_memory()
    async with living(free) as mover, AsyncExitStack() as others:
        before = served(mover)
        other = {(0, 2): (2, 4), (2, 4): (0, 2)}[before]
        # First the layers that are missing: else the mover could be quicker than that other peer.
        await others.enter_async_context(living(options(tiny, bootstrap, layers=other)))
        async with living(options(tiny, bootstrap, layers=before)):
            assert served(mover) == before
            await others.aclose()
            await eventually(lambda: served(mover) == other)
            moved = [news for news in mover if news.event == "moving"][-1]
            assert moved.sentence.startswith(
                f"moving from layers {before[0]}:{before[1]} to {other[0]}:{other[1]}"
            )
            found = await bootstrap.peers(tiny.fingerprint, LAYERS)
            assert {(r.first_layer, r.last_layer, r.state) for r in found} == {
                (*before, "online"),
                (*other, "online"),
            }
            await eventually(lambda: spans_in_memory() == spans + 2)


async def test_running_sessions_get_a_grace_in_which_the_record_says_so(
    tiny: Checkpoint, bootstrap: Directory
) -> None:
    stop, said = asyncio.Event(), list[PeerEvent]()
    life = asyncio.create_task(serve(options(tiny, bootstrap, grace_s=60.0), stop, said.append))
    await eventually(lambda: bool(said) or life.done())
    (record,) = await bootstrap.peers(tiny.fingerprint, LAYERS)
    dialer = Dialer(new_member())
    async with await dialer.connect(
        record.addresses[0], record.certificate, record.peer_id
    ) as link:
        assert isinstance(await ask(link, opening(tiny.fingerprint, 1, 3)), Opened)
        stop.set()
        deadline = time.monotonic() + PATIENCE_S
        while [record.state for record in await bootstrap.peers(tiny.fingerprint, LAYERS)] != [
            "draining"
        ]:
            assert time.monotonic() < deadline
        assert not life.done()
        await link.send(Close(session=session_id()))
        await soon(life)
    await dialer.close()
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def test_layers_that_do_not_fit_are_said_before_anything_is_loaded(tiny: Checkpoint) -> None:
    error = await failure(options(tiny, memory=60_000, cache_tokens=64))
    assert isinstance(error, DoesNotFit)
    assert error.layers == (1, 3)
    assert error.has_bytes == 60_000 < error.needs_bytes
    error = await failure(options(tiny, layers=None, memory=1_000))
    assert isinstance(error, DoesNotFit)
    assert "one layer of tiny" in str(error)


async def test_a_peer_whose_compute_thread_dies_does_not_go_on(
    tiny: Checkpoint, bootstrap: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Scheduler, "run", die)
    with pytest.raises(ZeroDivisionError):
        await soon(serve(options(tiny, bootstrap), asyncio.Event(), lambda _: None))
    assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []


async def failure(asked: PeerOptions) -> SwarmError:
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


async def test_one_key_is_one_peer_on_one_computer_and_on_two(
    tiny: Checkpoint, bootstrap: Directory, tmp_path: Path
) -> None:
    key, copied = tmp_path / "peer.key", tmp_path / "copied.key"
    asked = options(tiny, bootstrap, key_file=key)
    async with living(asked) as said:
        copied.write_bytes(key.read_bytes())
        copied.chmod(0o600)
        for file, where in (
            (key, "another process on this computer"),
            (copied, "a peer at 127.0.0.1:"),
        ):
            with pytest.raises(KeyInUse, match=where):
                await soon(serve(replace(asked, key_file=file), asyncio.Event(), lambda _: None))
        (record,) = await bootstrap.peers(tiny.fingerprint, LAYERS)
        assert record.addresses == tuple(said[-1].facts["addresses"])
    async with living(asked) as said:
        assert said[-1].event == "serving"


async def test_refusals_are_summed_up_now_and_then_and_at_the_end() -> None:
    admission, said = AccessControl(), list[PeerEvent]()
    admission.refuse("links", "")
    telling = asyncio.create_task(tell_refusals(admission, said.append, interval_s=0.01))
    await asyncio.sleep(0)
    admission.refuse("cache", "")
    await eventually(lambda: bool(said))
    assert dict(said[0].facts["counts"]) == {"cache": 1}, "what was refused before is no news"
    admission.refuse("dials", "")
    await end(telling)
    assert [news.event for news in said] == ["refused"] * 2
    assert "1 dials" in said[-1].sentence
