"""What peers and bootstrap nodes tell Prometheus, and that the dashboard asks for nothing else."""

import asyncio
import json
import re
from pathlib import Path

import aiohttp
import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from helpers.loopback import (
    Peer,
    ask,
    dialed,
    eventually,
    new_member,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from peers.access.reachability import AnnouncedAddresses
from peers.events import PeerEvent
from peers.offer import Offer
from peers.ops.health_server import ListenAddress, monitored
from peers.ops.metrics import NodeMetrics, PeerMetrics
from peers.options import PeerOptions
from peers.server import serve
from swarm import __version__
from swarm.config import Network
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.dht.directory import Directory
from swarm.network.links.handshake import HandshakeLimiter
from swarm.util.tasks import end
from swarm.wire.messages import Close, Fault, Opened, Result

GRAFANA = Path(__file__).parents[3] / "docs" / "grafana"
OURS = r"(?:swarm_peer|swarm_bootstrap|process)_\w+"
GATEWAYS = r"(?:vllm:|swarm_(?!peer_|bootstrap_))\w+"
LOOPBACK = ListenAddress("127.0.0.1", 0)

Samples = dict[tuple[str, ...], float]  # by the name and the values of its labels


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {
        (each.name, *each.labels.values()): each.value
        for family in families
        for each in family.samples
    }


def read(collector: Collector) -> Samples:
    registry = CollectorRegistry()
    registry.register(collector)
    return samples(generate_latest(registry).decode())


async def _no_link(_: object) -> None:
    """Nothing comes in over a relay here."""


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


async def test_a_peer_counts_what_it_does(span: Span, tiny: Checkpoint) -> None:
    async with Peer(span, tiny.fingerprint) as peer:
        offer = Offer((0, LAYERS), "online", 12.5, peer.budget)
        reach = AnnouncedAddresses(
            Network("test"), "127.0.0.1:1", HandshakeLimiter(new_member()), _no_link
        )
        metrics = PeerMetrics(peer.handler, offer, reach, {"model": "tiny"})
        before = read(metrics)
        assert before["swarm_peer_info", "tiny", __version__] == 1
        assert before["swarm_peer_state", "online"] == 1
        assert before["swarm_peer_measured_tokens_per_second",] == 12.5
        assert (before["swarm_peer_first_layer",], before["swarm_peer_layers",]) == (0, LAYERS)
        assert (
            before["swarm_peer_addresses", "direct"],
            before["swarm_peer_addresses", "relay"],
        ) == (1, 0)
        assert before["swarm_peer_bytes_total", "received"] == before["swarm_peer_links",] == 0
        async with dialed(peer.server) as link:
            assert isinstance(await ask(link, opening(tiny.fingerprint, 0, LAYERS)), Opened)
            assert isinstance(await ask(link, tokens_frame(1, (5, 6, 7))), Result)
            assert isinstance(await ask(link, tokens_frame(4, (8,))), Result)
            during = read(metrics)
            assert (during["swarm_peer_sessions",], during["swarm_peer_links",]) == (1, 1)
            assert (
                during["swarm_peer_cache_tokens",] - during["swarm_peer_cache_free_tokens",] == 64
            )
            assert during["swarm_peer_tokens_total",] == 4
            assert during["swarm_peer_batches_total",] == during["swarm_peer_turns_total",] == 2
            assert during["swarm_peer_compute_seconds_total",] > 0
            assert isinstance(
                await ask(link, opening("f" * 32, 0, LAYERS, session=session_id(2))), Fault
            )
            await link.send(Close(session=session_id()))
            await eventually(lambda: peer.idle)
            received = read(metrics)["swarm_peer_bytes_total", "received"]
        await eventually(lambda: not peer.handler.links)
        after = read(metrics)
        assert (after["swarm_peer_sessions",], after["swarm_peer_sessions_opened_total",]) == (0, 1)
        assert after["swarm_peer_faults_total", "wrong_model"] == 1
        # closed links still count
        assert after["swarm_peer_bytes_total", "received"] == received > 0
        assert after["swarm_peer_bytes_total", "sent"] > 0


async def test_what_is_refused_is_told_by_its_kind_and_never_by_whose_it_is(
    span: Span, tiny: Checkpoint
) -> None:
    async with Peer(span, tiny.fingerprint, cache_tokens=32) as peer:
        reach = AnnouncedAddresses(
            Network("test"), "127.0.0.1:1", HandshakeLimiter(new_member()), _no_link
        )
        metrics = PeerMetrics(
            peer.handler, Offer((0, LAYERS), "online", 1.0, peer.budget), reach, {}
        )
        before = set(read(metrics))
        for _ in range(3):  # clients
            async with dialed(peer.server) as link:
                assert isinstance(await ask(link, opening(tiny.fingerprint, 0, LAYERS)), Fault)
        after = read(metrics)
        assert set(after) - before == {
            ("swarm_peer_refusals_total", "cache"),
            ("swarm_peer_faults_total", "busy"),
        }
        assert after["swarm_peer_refusals_total", "cache"] == 3
        peer.handler.sessions.draining = True
        assert not metrics.ready
        assert read(metrics)["swarm_peer_state", "draining"] == 1


async def _get(address: str, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(address.removesuffix("/metrics") + path) as answer,
    ):
        return answer.status, await answer.text()


async def test_a_dashboard_asks_for_what_a_living_swarm_tells(tiny: Checkpoint) -> None:
    network = Network("test")
    async with await Directory.join(Identity.generate(), network, bootstrap_node=True) as bootstrap:
        said: list[PeerEvent] = []
        asked = PeerOptions(
            model=str(tiny._source.path),
            layers=(0, LAYERS),
            network=Network("test", bootstrap.addresses),
            key_file=None,
            host="127.0.0.1",
            port=0,
            announce=None,
            device=torch.device("cpu"),
            dtype=None,
            threads=1,
            metrics=LOOPBACK,
        )
        stop = asyncio.Event()
        life = asyncio.create_task(serve(asked, stop, said.append))
        try:
            await eventually(lambda: bool(said) or life.done())
            address = said[0].sentence.removeprefix("metrics are at ")
            assert await _get(address, "/health") == (
                200,
                json.dumps({"status": "up", "version": __version__}),
            )
            status, text = await _get(address, "/ready")
            assert status == (200 if json.loads(text)["state"] == "online" else 503)
            await eventually(lambda: said[-1].event == "serving" or life.done())
            assert await _get(address, "/ready") == (200, json.dumps({"state": "online"}))
            of_peer = (await _get(address, "/metrics"))[1]
            async with monitored(NodeMetrics(bootstrap), LOOPBACK) as address:
                of_node = (await _get(address, "/metrics"))[1]
            stop.set()
            await soon(life)
        finally:
            await end(life)
    found = samples(of_node)
    assert (found["swarm_bootstrap_up",], found["swarm_bootstrap_nodes",]) == (1, 1)
    assert found["swarm_bootstrap_connections",] >= 1
    assert found["swarm_bootstrap_records",] >= 1
    assert found["swarm_bootstrap_calls_total", "answered"] > 0

    assert len(_asked(OURS)) > 20
    assert _asked(OURS) <= _told(of_peer) | _told(of_node)


def test_a_dashboard_asks_for_what_a_gateway_tells() -> None:
    from swarm.gateway.admission import AdmissionControl
    from swarm.gateway.metrics import Metrics

    told = _told(Metrics(AdmissionControl()).text().decode())
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in _asked(GATEWAYS)} <= told


def _told(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def _asked(pattern: str) -> set[str]:
    return {name for each in _expressions() for name in re.findall(rf"\b{pattern}", each)}


def _expressions() -> list[str]:
    board = json.loads((GRAFANA / "swarm.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def test_every_panel_has_a_place_of_its_own() -> None:
    board = json.loads((GRAFANA / "swarm.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in board["panels"]):
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert all(expression.count("(") == expression.count(")") for expression in _expressions())


def test_prometheus_is_told_of_the_jobs_that_the_dashboard_names() -> None:
    jobs = set(re.findall(r"job_name: (\S+)", (GRAFANA / "prometheus.yml").read_text()))
    assert set(re.findall(r'job="([^"]+)"', " ".join(_expressions()))) <= jobs
