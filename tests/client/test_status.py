"""What a network looks like, from real records and peers that do or do not answer."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.crowd import crowd
from helpers.imports import imported
from helpers.loopback import Server, pong, soon, tiny_checkpoint
from helpers.models import LAYERS
from helpers.terminals import on_screens
from swarm.client import pinger, status
from swarm.client.status import look, routes
from swarm.config import Network
from swarm.errors import ConfigError, ModelNotFound, NoBootstrap, OtherQuantization
from swarm.identity import Identity
from swarm.keylock import KeyInUse, held
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import INT8
from swarm.network.dht.directory import Directory
from swarm.network.dht.keys import CAPACITY
from swarm.terminal import console


class Lab:
    """A bootstrap node, and peers that publish through one other node."""

    def __init__(self, stack: AsyncExitStack, bootstrap: Directory) -> None:
        self.stack = stack
        self.network = Network("test", bootstrap.addresses)
        self._shared: Directory | None = None
        self._identities: list[Identity] = []

    async def publish(self, servers: Sequence[Server], **changes: Any) -> None:
        """Publish a record of each server."""
        if self._shared is None:
            joined = await Directory.join(Identity.generate(), self.network)
            self._shared = await self.stack.enter_async_context(joined)
        self._identities += [server.identity for server in servers]
        directories = crowd([self._shared], self.network, self._identities)[-len(servers) :]
        for server, directory in zip(servers, directories, strict=True):
            await directory.publish(server.record(**changes))

    async def peer(self, first: int, last: int, *, answers: bool = True, **changes: str) -> str:
        """A published record, and a port that answers pings, or none."""
        server = Server(pong)
        if answers:
            await self.stack.enter_async_context(server)
        else:
            server.address = "127.0.0.1:1"
        await self.publish([server], first_layer=first, last_layer=last, **changes)
        return server.identity.peer_id


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with AsyncExitStack() as stack:
        first = await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True)
        yield Lab(stack, await stack.enter_async_context(first))


async def test_an_empty_network_has_no_models(lab: Lab) -> None:
    assert await soon(look(lab.network)) == []


async def test_layers_count_as_served_only_if_their_peer_answers(lab: Lab) -> None:
    good, dead = await lab.peer(0, 2), await lab.peer(2, LAYERS, answers=False)
    leaving = await lab.peer(2, 3, state="draining")
    (report,) = await soon(look(lab.network))
    assert (report.model, report.model_layers, report.missing) == ("tiny", LAYERS, ((2, LAYERS),))
    peers = {peer.peer_id: peer for peer in report.peers}
    assert set(peers) == {good, dead, leaving}
    assert peers[good].layers == (0, 2)
    assert peers[good].rtt_ms is not None
    assert peers[dead].rtt_ms is None
    assert peers[leaving].state == "draining"
    assert report.as_dict()["peers"][0]["peer_id"] == good
    assert report.as_dict()["why"] == report.why
    assert (
        report.why
        == f"tiny cannot be used now: layers 2:{LAYERS} are served only by 1 peer that cannot be"
        " reached."
    )


async def test_a_model_may_be_asked_for_though_nobody_serves_it(lab: Lab, tmp_path: Path) -> None:
    await lab.peer(0, LAYERS)  # of the same name, with other weights
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    (report,) = await soon(look(lab.network, str(tmp_path / "tiny")))
    assert report.fingerprint == checkpoint.fingerprint
    assert (report.peers, report.missing) == ((), ((0, LAYERS),))
    assert "no peer serves it; 1 peer serves other weights of that name (fingerprint " in report.why
    with pytest.raises(ModelNotFound):
        await soon(look(lab.network, str(tmp_path / "nothing")))


async def test_quantized_weights_are_a_swarm_of_their_own(lab: Lab, tmp_path: Path) -> None:
    plain = tiny_checkpoint(tmp_path / "tiny")
    int8 = Checkpoint.open(str(tmp_path / "tiny"), INT8)
    peer = await lab.peer(0, LAYERS, model=int8.name, fingerprint=int8.fingerprint)
    (report,) = await soon(look(lab.network))
    assert (report.model, report.fingerprint) == ("tiny-int8", int8.fingerprint)
    (report,) = await soon(look(lab.network, str(tmp_path / "tiny"), quantization="int8"))
    assert ([each.peer_id for each in report.peers], report.missing) == ([peer], ())
    (report,) = await soon(look(lab.network, str(tmp_path / "tiny")))
    assert (report.fingerprint, report.peers) == (plain.fingerprint, ())
    assert "1 peer serves these weights in int8 (--quantization int8)" in report.why
    for asked, words in (("none", "as they are"), ("nf4", "in nf4")):
        with pytest.raises(
            OtherQuantization, match=f"not {words}, but in int8; .* --quantization int8$"
        ):
            await soon(routes(lab.network, str(tmp_path / "tiny"), quantization=asked))
    with pytest.raises(ConfigError, match="'int3'"):
        await soon(look(lab.network, str(tmp_path / "tiny"), quantization="int3"))


async def test_all_peers_are_asked_however_many(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinger, "MAX_CANDIDATES", 1)
    for layer in range(LAYERS):
        await lab.peer(layer, layer + 1)
    (report,) = await soon(look(lab.network))
    assert report.missing == ()
    assert len(report.peers) == LAYERS


async def test_the_route_and_the_runner_up_are_explained(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"fingerprint": tiny_checkpoint(tmp_path / "tiny").fingerprint}
    lower = [await lab.peer(0, 2, **weights) for _ in range(2)]
    upper = await lab.peer(2, LAYERS, **weights)
    best, second = await soon(routes(lab.network, str(tmp_path / "tiny")))
    chains = [[stage.peer_id for stage in choice.plan.stages] for choice in (best, second)]
    assert sorted(chains) == sorted([[peer_id, upper] for peer_id in lower])
    assert 0 < best.plan.loop_ms <= second.plan.loop_ms
    told = best.as_dict()
    assert [peer["layers"] for peer in told["peers"]] == [(0, 2), (2, LAYERS)]
    assert [peer["dtype"] for peer in told["peers"]] == ["float32"] * 2
    assert all(peer["rtt_ms"] > 0 and peer["layer_ms"] > 0 for peer in told["peers"])
    for width, lines in on_screens(
        monkeypatch, lambda: console.show_routes([best, second])
    ).items():
        text = "\n".join(lines)
        assert all(
            text.count(column) == 2
            for column in ("peer", "layers", "dtype", "rtt ms", "waits ms", "computes ms")
        ), width
        assert text.count(f"\u2026{upper[-8:]}") == 2
        assert text.count("float32") == 4, "each of two peers of both chains"


async def test_of_more_peers_than_enough_a_sample_is_shown(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = [Server(pong) for _ in range(CAPACITY + 20)]
    for server in servers:
        server.address = "127.0.0.1:1"
    await lab.publish(servers)
    (report,) = await soon(look(lab.network))
    assert (report.estimated_peers, len(report.peers)) == (None, len(servers))
    monkeypatch.setattr(status, "ENOUGH_PEERS", 1)
    (report,) = await soon(look(lab.network))
    assert report.estimated_peers is not None
    assert CAPACITY <= report.estimated_peers <= CAPACITY + 40
    assert len(report.peers) < len(servers)


async def test_no_bootstrap_node_is_an_error() -> None:
    with pytest.raises(NoBootstrap):
        await look(Network("test"))


async def test_a_client_may_have_the_key_of_a_peer_unless_it_has_to_enter_by_it(
    lab: Lab, tmp_path: Path
) -> None:
    peer = Identity.load_or_create(tmp_path / "peer.key")
    members = frozenset({peer.peer_id})
    with held(peer.file, alone=True):
        assert await soon(look(lab.network, identity=peer)) == []
        with pytest.raises(KeyInUse):
            await soon(look(replace(lab.network, members=members), identity=peer))


def test_to_look_at_all_models_no_model_library_is_imported() -> None:
    """It takes longer to import than to ask: only a question about one model needs it."""
    assert "transformers" not in imported("swarm.client.status")
    assert "transformers" in imported("swarm.client.client")
