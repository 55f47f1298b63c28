"""A bootstrap node that dials back."""

from collections.abc import AsyncIterator

import pytest

from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory
from swarm.network.nat.dialback import answering


@pytest.fixture
async def bootstrap() -> AsyncIterator[Directory]:
    """Provide a bootstrap node of the network "test", for whose rate limits no time passes."""
    async with (
        await Directory.join(
            Identity.generate(), Network("test"), bootstrap_node=True
        ) as directory,
        answering(directory.daemon, clock=lambda: 0.0),
    ):
        yield directory
