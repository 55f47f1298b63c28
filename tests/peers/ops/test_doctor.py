import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hivemind.dht import protocol

from helpers.dht import record_of
from peers.access.reachability import judge
from peers.ops import doctor
from peers.ops.doctor import (
    Finding,
    check_device,
    check_port,
    clock_finding,
    examine,
    is_well,
    reach_finding,
    show,
)
from swarm.config import Network, load_network
from swarm.errors import NoBootstrap
from swarm.identity import Identity
from swarm.network.dht.clock_check import clock_skew_s
from swarm.network.dht.directory import Directory
from swarm.network.nat.dialback import DialResponse


def named(bootstrap: Sequence[str], name: str | None) -> Callable[[], Network]:
    return lambda: load_network(bootstrap=bootstrap, name=name)


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


async def test_a_healthy_computer_has_nothing_to_do(
    bootstrap: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = await examine(named(bootstrap.addresses, "test"), 0)
    subjects = [finding.subject for finding in findings]
    assert subjects == ["libp2p", "device", "port", "clock", "network", "models", "reach"]
    show(findings)
    assert is_well(findings)
    said = capsys.readouterr().out
    assert "FAIL" not in said
    assert "no model yet" in said
    assert "others get through to" in said


async def test_where_members_are_listed_it_enters_as_the_peer_that_would_serve_here(
    tmp_path: Path,
) -> None:
    key_file, node = tmp_path / "peer.key", Identity.generate()
    us = Identity.load_or_create(key_file)
    network = Network("test", members=frozenset({node.peer_id, us.peer_id}))
    async with await Directory.join(node, network, bootstrap_node=True) as directory:
        net = replace(network, bootstrap=tuple(directory.addresses))
        member = by_subject(await examine(lambda: net, 0, key_file=key_file))
        stranger = by_subject(await examine(lambda: net, 0, key_file=tmp_path / "other.key"))
    assert member["network"].remedy == member["models"].remedy == ""
    assert "no model yet" in member["network"].fact
    other = Identity.load_or_create(tmp_path / "other.key").peer_id
    assert f"add {other} to it" in stranger["network"].remedy


async def test_the_skew_to_the_bootstrap_nodes_is_measured(
    bootstrap: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = protocol.get_dht_time
    for skew_s in (-100.0, 0.0, 100.0):
        # what the node says its time is
        monkeypatch.setattr(protocol, "get_dht_time", lambda skew_s=skew_s: now() - skew_s)
        assert await clock_skew_s(Network("test", bootstrap.addresses)) == pytest.approx(
            skew_s, abs=1.0
        )


async def test_nobody_tells_the_time() -> None:
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    with pytest.raises(NoBootstrap):
        await clock_skew_s(Network("test", (nobody,)))


async def test_a_clock_that_is_wrong_is_found_though_nobody_lets_us_in(
    bootstrap: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = protocol.get_dht_time
    monkeypatch.setattr(protocol, "get_dht_time", lambda: now() + 3600)
    clock = by_subject(await examine(named(bootstrap.addresses, "test"), 0))["clock"]
    assert "behind" in clock.fact
    assert "set the clock" in clock.remedy


@pytest.mark.parametrize(
    ("skew_s", "fine"), [(0.1, True), (-2.4, True), (2.6, False), (-5000.0, False)]
)
def test_seconds_are_too_much(skew_s: float, fine: bool) -> None:
    finding = clock_finding(skew_s)
    assert (finding.remedy == "") == fine
    assert ("ahead" in finding.fact) == (skew_s > 0)


async def test_without_a_bootstrap_node_the_rest_is_checked_and_the_remedy_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = await examine(named((), None), 0)
    show(findings)
    assert not is_well(findings)
    assert "No bootstrap node is configured" in capsys.readouterr().out
    assert [finding.subject for finding in findings if finding.remedy] == ["network"]


async def test_a_bootstrap_node_that_does_not_answer_is_a_finding() -> None:
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    findings = by_subject(await examine(named((nobody,), None), 0))
    assert "check that it runs" in findings["network"].remedy
    assert "not compared" in findings["clock"].fact


async def test_a_missing_daemon_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hivemind.p2p.p2p_daemon.P2PD_FILENAME", "no-such-daemon")
    assert "reinstall" in by_subject(await examine(named((), None), 0))["libp2p"].remedy


def test_a_taken_port_is_a_finding() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert str(port) in check_port(port).fact
        assert "--port" in check_port(port).remedy
    assert check_port(0).remedy == ""


def test_a_device_that_does_not_work_is_a_finding() -> None:
    assert check_device("cpu").remedy == ""
    assert "--device cpu" in check_device("cuda:99").remedy


async def test_an_announced_address_that_leads_elsewhere_is_not_dialled(
    bootstrap: Directory,
) -> None:
    reach = by_subject(await examine(named(bootstrap.addresses, "test"), 0, "192.0.2.1:31330"))[
        "reach"
    ]
    assert "192.0.2.1:31330" in reach.fact
    assert "unverified" in reach.fact
    assert not reach.remedy


def test_behind_a_router_all_is_well_and_there_is_advice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdict = judge(
        [DialResponse(seen=("203.0.113.5",), tried="203.0.113.5:31330")], "192.168.1.7:31330"
    )
    finding = reach_finding(verdict, "192.168.1.7:31330")
    show([finding])
    assert is_well([finding])
    said = capsys.readouterr().out
    for word in ("203.0.113.5", "relay", "forward TCP port 31330", "--announce"):
        assert word in said


async def test_a_check_that_hangs_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, bootstrap: Directory
) -> None:
    monkeypatch.setattr(doctor, "CHECK_TIMEOUT_S", 0.01)
    assert (
        "no answer"
        in by_subject(await examine(named(bootstrap.addresses, "test"), 0))["network"].fact
    )


async def test_why_a_model_cannot_be_used_is_said_and_what_a_peer_here_could_do(
    bootstrap: Directory,
) -> None:
    identity = Identity.generate()
    network = Network("test", bootstrap.addresses)
    async with await Directory.join(identity, network) as directory:
        await directory.publish(record_of(identity, first=0, last=4, addresses=("127.0.0.1:1",)))
        models = by_subject(await examine(lambda: network, 0))["models"]
    assert "layers 0:4 are served only by 1 peer that cannot be reached" in models.fact
    assert "no peer serves layers 4:8" in models.fact
    assert models.advice.endswith("--layers 4:8")
    assert is_well([models])
