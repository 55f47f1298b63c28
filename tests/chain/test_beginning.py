"""What a session begins with, as its client asks for it and takes the peers' word."""

import pytest

from helpers.chain_answers import SESSION, TERMS
from helpers.plain_peers import PlainPeer, plain_peer
from swarm.chain.beginning import know_forks
from swarm.chain.protocol import ChainProtocol
from swarm.errors import ChainBroken
from swarm.wire.faults import FaultCode
from swarm.wire.forks import Fork
from swarm.wire.messages import Open, Opened

OTHER = bytes(range(16, 32))
CHAIN = [plain_peer("firstpeer0", 0), plain_peer("lastpeer00", 1)]


def forked(source: ChainProtocol[PlainPeer]) -> ChainProtocol[PlainPeer]:
    protocol = ChainProtocol(OTHER, CHAIN, TERMS)
    protocol.begin_with(source, 9, 5)
    return protocol


def asked(protocol: ChainProtocol[PlainPeer], peers: list[PlainPeer]) -> list[Fork | None]:
    openings = protocol.join(peers, None, 0, None)
    return [each.message.fork for each in openings if isinstance(each.message, Open)]


def told(held: int, forks: bool = True) -> Opened:
    return Opened(session=OTHER, forks=forks, held=held)


def test_all_peers_are_asked_and_those_that_join_later_are_not() -> None:
    protocol = forked(ChainProtocol(SESSION, CHAIN, TERMS))
    assert asked(protocol, CHAIN) == [Fork(session=SESSION, root=9, count=5)] * 2
    protocol.opened(CHAIN, [told(5)] * 2)
    assert protocol.beginning.can_be_forked
    later = [plain_peer("laterpeer0", 1)]
    assert asked(protocol, later) == [None]
    protocol.opened(later, [told(0, forks=False)])
    assert not protocol.beginning.can_be_forked


@pytest.mark.parametrize("held", [0, 4, 6])
def test_a_peer_that_holds_something_else_is_not_believed(held: int) -> None:
    """An older one says nothing, which is none."""
    protocol = forked(ChainProtocol(SESSION, CHAIN, TERMS))
    asked(protocol, CHAIN)
    with pytest.raises(ChainBroken) as caught:
        protocol.opened(CHAIN, [told(5), told(held)])
    assert (caught.value.peer_id, caught.value.code) == ("lastpeer00", FaultCode.NO_SESSION)
    assert not caught.value.is_failure


def test_nor_is_one_that_was_to_begin_with_nothing() -> None:
    protocol = ChainProtocol(OTHER, CHAIN, TERMS)
    asked(protocol, CHAIN)
    with pytest.raises(ChainBroken):
        protocol.opened(CHAIN, [told(0), told(5)])


def test_it_rests_on_the_work_of_all_that_the_other_one_rests_on() -> None:
    source = ChainProtocol(SESSION, [plain_peer("replaced00", 0), CHAIN[1]], TERMS)
    source.go_on(CHAIN, 1)
    protocol = forked(source)
    assert set(protocol.parties) == {"replaced00", "firstpeer0", "lastpeer00"}
    protocol.forget("replaced00")
    assert "replaced00" in source.parties


@pytest.mark.parametrize(("protocols", "known"), [((8, 8), True), ((8, 7), False), ((9,), True)])
def test_forks_are_known_by_the_versions_of_all(protocols: tuple[int, ...], known: bool) -> None:
    assert know_forks(protocols) is known
