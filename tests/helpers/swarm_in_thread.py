"""A whole swarm in a thread of this process: a bootstrap node, and peers that announce themselves.

It is for tests of blocking interfaces, and of programs that know only a bootstrap node's address.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from helpers.loopback import NETWORK, Peer
from swarm.config import Network
from swarm.demo import TARGET, locate
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.dht.directory import Directory
from swarm.network.dht.publication import announce
from swarm.util.tasks import end, end_all

SPANS = [(0, 3), (3, 8)]  # of the demonstration's target


class ThreadedSwarm:
    """Serves a model until it is closed.

    Attributes:
        network: how a client enters.
    """

    def __init__(self, model: str, spans: Sequence[tuple[int, int]]) -> None:
        self.model = model
        self._spans = spans
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="swarm", daemon=True)
        self._life = AsyncExitStack()
        self._thread.start()
        self.network: Network = self._run(self._start())

    def close(self) -> None:
        self._run(self._life.aclose())
        self._run(end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> Network:
        node = Directory.join(Identity.generate(), NETWORK, bootstrap_node=True)
        entrance = await self._life.enter_async_context(await node)
        network = Network(NETWORK.name, entrance.addresses)
        checkpoint = Checkpoint.open(self.model)
        for span in self._spans:
            peer = Peer(
                Span.load(checkpoint, *span),
                checkpoint.fingerprint,
                16_384,
                checkpoint.max_positions or 0,
            )
            await self._life.enter_async_context(peer)
            directory = await Directory.join(peer.server.identity, network)
            await self._life.enter_async_context(directory)
            record = peer.server.record(
                model=checkpoint.name,
                model_layers=checkpoint.num_layers,
                first_layer=span[0],
                last_layer=span[1],
                fingerprint=checkpoint.fingerprint,
                tokens_per_second=1000.0,
            )
            await directory.publish(record)
            announcing = asyncio.create_task(announce(directory, lambda record=record: record))
            self._life.push_async_callback(end, announcing)
        return network

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


# of a module, because tests of other modules check that this process has no children
@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedSwarm]:
    """The demonstration's target, served by two peers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        swarm = ThreadedSwarm(locate(TARGET), SPANS)
    yield swarm
    swarm.close()
