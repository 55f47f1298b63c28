"""What an event says against whom."""

import pytest

from helpers.chain_answers import SESSION
from helpers.plain_peers import PlainPeer, fault, plain_peer
from swarm.chain.blame import failure
from swarm.chain.events import Event, Lost, Received
from swarm.chain.members import Members
from swarm.errors import ChainBroken
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Opened

A, B = CHAIN = (plain_peer("a", 0), plain_peer("b", 1))


@pytest.fixture
def members() -> Members[PlainPeer]:
    members: Members[PlainPeer] = Members()
    members.admit(A, B.hop)
    members.admit(B, None)
    return members


def facts(event: Event, members: Members[PlainPeer]) -> tuple[object, ...]:
    broken = failure(event, members, CHAIN)
    assert isinstance(broken, ChainBroken)
    return broken.peer_id, broken.layers, broken.why, broken.code


def test_one_that_is_lost_has_failed(members: Members[PlainPeer]) -> None:
    assert facts(Lost("b", "it hung up", 0.0), members) == ("b", (1, 2), "it hung up", None)


def test_one_that_reports_a_fault_has_failed_with_its_code(members: Members[PlainPeer]) -> None:
    told = fault(FaultCode.BUSY)
    expected = ("a", (0, 1), "busy", FaultCode.BUSY)
    assert facts(Received("a", told, 0.0), members) == expected
    spoken = told.model_copy(update={"text": "no room"})
    assert facts(Received("a", spoken, 0.0), members)[2] == "no room"


def test_the_next_peer_has_failed_if_the_one_before_says_so(members: Members[PlainPeer]) -> None:
    """It has reported nothing itself, so there is no code of its own."""
    told = fault(FaultCode.NEXT_UNREACHABLE, "b")
    assert facts(Received("a", told, 0.0), members) == ("b", (1, 2), "next_unreachable", None)


def test_one_that_blames_a_peer_that_has_left_has_failed(members: Members[PlainPeer]) -> None:
    members.leave([B])
    told = fault(FaultCode.NEXT_UNREACHABLE, "b")
    assert facts(Received("a", told, 0.0), members)[0] == "a"


def test_any_other_message_is_out_of_turn(members: Members[PlainPeer]) -> None:
    event = Received("b", Opened(session=SESSION), 0.0)
    assert facts(event, members) == ("b", (1, 2), "it sent Opened out of turn", None)
