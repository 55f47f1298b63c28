"""Work that begins anew on another chain when a peer fails: how often, and how long it waits."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from helpers.loopback import soon
from swarm.chain import retry
from swarm.chain.retry import on_some_chain
from swarm.errors import ChainBroken, ChainSilent, MissingLayers
from swarm.routing.taps import Tapping
from swarm.wire.faults import FaultCode


class Source:
    """One peer a chain: the first that is not to be avoided."""

    def __init__(self, *peers: str) -> None:
        self.peers = list(peers)
        self.expected = True
        self.now = 0.0
        self.asked: list[set[str]] = []
        self.blamed: list[str] = []

    async def chain(self, avoid: Collection[str], tapping: Tapping | None) -> Any:
        self.asked.append(set(avoid))
        self.now += 1.0
        for peer in self.peers:
            if peer not in avoid:
                return [peer]
        raise MissingLayers("model", [(0, 4)], 4, 0, self.expected)

    def broke(self, failure: ChainBroken) -> None:
        self.blamed.append(failure.peer_id)

    async def work(self, work: Callable[[str], Any], tries: int = 3, patience_s: float = 0) -> Any:
        async def on(chain: Sequence[Any]) -> Any:
            return work(chain[0])

        return await soon(
            on_some_chain(self, on, tries=tries, patience_s=patience_s, clock=lambda: self.now)
        )


def broken(peer: str, code: FaultCode | None = None) -> ChainBroken:
    return ChainBroken(peer, (0, 4), "it does not want to", code)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)


async def test_the_next_chain_is_without_the_peer_that_failed() -> None:
    source = Source("a", "b", "c")

    def work(peer: str) -> str:
        if peer != "c":
            raise broken(peer)
        return f"by {peer}"

    assert await source.work(work) == "by c"
    assert source.asked == [set(), {"a"}, {"a", "b"}]
    assert source.blamed == ["a", "b"]


@pytest.mark.parametrize("failure", [broken("a"), ChainSilent(1.0)])
async def test_so_many_chains_may_fail_and_no_more(failure: Exception) -> None:
    source = Source("a", "b", "c", "d")
    tried = []

    def work(peer: str) -> None:
        tried.append(peer)
        raise failure

    with pytest.raises(type(failure)):
        await source.work(work)
    assert len(tried) == 3


async def test_a_peer_that_is_busy_is_passed_over_but_has_not_failed() -> None:
    source = Source(*"abcdef")

    def work(peer: str) -> str:
        if peer != "f":
            raise broken(peer, FaultCode.BUSY)
        return peer

    assert await source.work(work, tries=1) == "f"


async def test_peers_that_are_expected_are_waited_for_and_asked_again() -> None:
    source = Source("a")
    tried = []

    def work(peer: str) -> str:
        tried.append(peer)
        if len(tried) < 3:
            raise broken(peer, FaultCode.BUSY)
        return peer

    assert await source.work(work, patience_s=100.0) == "a"
    assert source.asked == [set(), {"a"}, set(), {"a"}, set()]


async def test_whose_patience_ends_is_told_what_refused_it() -> None:
    source = Source("a")

    def work(peer: str) -> None:
        raise broken(peer, FaultCode.BUSY)

    with pytest.raises(ChainBroken, match="does not want to"):
        await source.work(work, patience_s=5.0)
    assert source.now == pytest.approx(6.0, abs=1.0)


@pytest.mark.parametrize(("expected", "patience_s"), [(False, 100.0), (True, 0.0)])
async def test_layers_that_nobody_will_serve_are_not_waited_for(
    expected: bool, patience_s: float
) -> None:
    source = Source()
    source.expected = expected
    with pytest.raises(MissingLayers):
        await source.work(lambda _: None, patience_s=patience_s)
    assert source.asked == [set()]
