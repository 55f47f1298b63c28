"""The endpoint for those who watch, asked over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from peers.ops.health_server import ListenAddress, monitored
from swarm.errors import CannotListen

LOOPBACK = ListenAddress("127.0.0.1", 0)


class Lamp:
    """Something to watch."""

    state, ready, looks = "joining", False, 0

    async def look(self) -> None:
        self.looks += 1

    def collect(self):
        yield GaugeMetricFamily("lamp_looks", "How often.", self.looks)


@asynccontextmanager
async def asking(lamp: Lamp) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        monitored(lamp, LOOPBACK) as address,
        aiohttp.ClientSession(address.removesuffix("/metrics")) as session,
    ):
        yield session


async def test_metrics_are_read_when_they_are_asked_for() -> None:
    async with asking(Lamp()) as session:
        for looks in (1, 2):
            async with session.get("/metrics") as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain; version=")
                found: dict[str, Metric] = {
                    each.name: each for each in text_string_to_metric_families(await answer.text())
                }
            assert found["lamp_looks"].samples[0].value == looks
            assert found["process_resident_memory_bytes"].samples[0].value > 0


async def test_up_is_not_ready() -> None:
    lamp = Lamp()
    async with asking(lamp) as session:
        async with session.get("/health") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "up")
        async with session.get("/ready") as answer:
            assert (answer.status, await answer.json()) == (503, {"state": "joining"})
        lamp.state, lamp.ready = "online", True
        async with session.get("/ready") as answer:
            assert (answer.status, await answer.json()) == (200, {"state": "online"})


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405)]
)
async def test_nothing_else_is_answered(method: str, path: str, status: int) -> None:
    async with asking(Lamp()) as session, session.request(method, path, data=b"x") as answer:
        assert answer.status == status


async def test_a_taken_port_is_said_with_its_option() -> None:
    async with monitored(Lamp(), LOOPBACK) as address:
        taken = ListenAddress("127.0.0.1", int(address.split(":")[2].split("/")[0]))
        with pytest.raises(CannotListen, match="give another --metrics"):
            async with monitored(Lamp(), taken):
                pass
