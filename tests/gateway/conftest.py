"""Fixtures of the gateway's tests: the demo models, and a gateway over a swarm of them."""

from collections.abc import AsyncIterator

import pytest

from helpers.gateway_in_process import Served, demo_material, gateway_over
from helpers.swarm_in_process import Material


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Material:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        material = demo_material()
        assert material.checkpoint.fingerprint
        return material


@pytest.fixture
async def served(demo: Material) -> AsyncIterator[Served]:
    async with gateway_over(demo) as served:
        yield served
