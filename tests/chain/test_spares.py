"""The book of peers that stand by: whom to look for, to feed, to ask, to leave, and to trust."""

import pytest

from helpers.chain_answers import SESSION
from helpers.plain_peers import PlainPeer, fault, hop, plain_peer
from swarm.chain.events import Lost, Received
from swarm.chain.spares import CATCH_UP_S, SEEK_S, SILENCE_S, Spare, Spares
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Close, Opened, Progress, Rerouted, WireMessage

A, B, C = CHAIN = (plain_peer("a", 0), plain_peer("b", 1), plain_peer("c", 2))
S, T = plain_peer("s", 1), plain_peer("t", 1)


def progress(last: int) -> Progress:
    return Progress(session=SESSION, epoch=0, last=last, passed=last)


def hear(spares: Spares[PlainPeer], message: WireMessage, at: float = 0.0, of: str = "s") -> None:
    spares.hear(Received(of, message, at), branches=True)


@pytest.fixture
def spares() -> Spares[PlainPeer]:
    return Spares()


@pytest.fixture
def spare(spares: Spares[PlainPeer]) -> Spare[PlainPeer]:
    """One that stands by for the peer in the middle, since 0 s."""
    return spares.add(1, CHAIN, S, 0.0)


@pytest.fixture
def fed(spares: Spares[PlainPeer], spare: Spare[PlainPeer]) -> Spare[PlainPeer]:
    """It is fed, and was up to date at 0 s."""
    hear(spares, Opened(session=SESSION))
    spares.begin_feed(spare, 7)
    hear(spares, progress(7))
    return spare


# Whom it stands by for.


def test_a_spare_is_fed_and_sends_as_its_member_does(spares: Spares[PlainPeer]) -> None:
    first, middle, last = (spares.add(place, CHAIN, S, 0.0) for place in range(3))
    assert [each.member for each in (first, middle, last)] == ["a", "b", "c"]
    assert [each.feeder for each in (first, middle, last)] == [None, A, B]
    assert [each.onward for each in (first, middle, last)] == [B.hop, C.hop, None]


def test_a_member_has_the_spare_that_was_added_for_it_last(spares: Spares[PlainPeer]) -> None:
    old = spares.add(1, CHAIN, S, 0.0)
    new = spares.add(1, CHAIN, T, 0.0)
    assert (spares.of(B), spares.of(A), list(spares)) == (new, None, [new])
    spares.remove(old)
    assert spares.of(B) is new, "the other one took its place"
    spares.remove(new)
    assert (spares.of(B), spares.peer_ids) == (None, set())


# Looking for one.


def test_none_is_taken_that_is_in_the_chain_or_stands_by_already(
    spares: Spares[PlainPeer], spare: Spare[PlainPeer]
) -> None:
    assert spares.seek(0, CHAIN, 0.0) == {"a", "b", "c", "s"}
    assert spares.seek(1, CHAIN, 0.0) is None, "it has one"


def test_the_same_layers_are_looked_for_now_and_then(spares: Spares[PlainPeer]) -> None:
    assert spares.seek(1, CHAIN, 0.0) is not None
    assert spares.seek(2, CHAIN, 0.0) is not None, "other layers"
    assert spares.seek(1, CHAIN, SEEK_S - 0.1) is None
    assert spares.seek(1, CHAIN, SEEK_S) is not None
    assert spares.seek(1, CHAIN, SEEK_S + 0.1) is None, "the last search counts"
    spares.seek_again()
    assert spares.seek(1, CHAIN, SEEK_S + 0.1) is not None


def test_one_that_was_left_for_good_is_not_taken_again(
    spares: Spares[PlainPeer], spare: Spare[PlainPeer]
) -> None:
    spares.hear(Lost("s", "it hung up", 1.0), branches=True)
    assert spares.look(2 * CATCH_UP_S, 0) == ([spare], [])
    assert spare.failure == "it hung up"
    spares.remove(spare)
    assert spares.seek(1, CHAIN, 1.0) == {"a", "b", "c", "s"}


# Up to date or not.


def test_a_spare_is_ready_while_it_holds_what_was_answered(
    spares: Spares[PlainPeer], fed: Spare[PlainPeer]
) -> None:
    assert spares.ready(SILENCE_S - 0.1) == (S,)
    assert spares.ready(SILENCE_S) == (), "it may hang"
    hear(spares, progress(7), at=4.0)
    assert spares.ready(4.0 + SILENCE_S - 0.1) == (S,)
    hear(spares, progress(6), at=5.0)
    assert spares.ready(5.0) == (), "it has fallen behind"
    assert fed.since == 4.0
    hear(spares, progress(7), at=6.0)
    assert spares.ready(6.0) == (S,)


def test_a_spare_may_be_one_answer_behind_while_the_text_goes_on(
    spares: Spares[PlainPeer], fed: Spare[PlainPeer]
) -> None:
    """What it tells may have been sent before it was asked the last time."""
    assert spares.look(1.0, 9) == ([], [fed])
    hear(spares, progress(7), at=1.0)
    assert fed.ready
    spares.look(2.0, 12)
    hear(spares, progress(8), at=2.0)
    assert not fed.ready, "9 was answered when it was asked before"
    hear(spares, progress(9), at=3.0)
    assert (fed.ready, fed.since) == (True, 3.0)


def test_one_that_cannot_reach_its_next_peer_is_not_up_to_date(
    spares: Spares[PlainPeer], fed: Spare[PlainPeer]
) -> None:
    hear(spares, fault(FaultCode.NEXT_UNREACHABLE, "c"), at=1.0)
    assert (fed.reaches, fed.failure, spares.ready(1.0)) == (False, "", ())
    assert fed.could_step_in(1.0, broken=("c",)), "another peer will take that one's place"
    assert not fed.could_step_in(1.0, broken=("b",))
    hear(spares, progress(7), at=2.0)
    assert fed.since == 0.0
    hear(spares, Rerouted(session=SESSION, epoch=0), at=3.0)
    hear(spares, progress(7), at=3.0)
    assert (fed.since, spares.ready(3.0)) == (3.0, (S,))


def test_only_those_that_are_fed_are_asked(
    spares: Spares[PlainPeer], spare: Spare[PlainPeer]
) -> None:
    assert spares.look(1.0, 3) == ([], [])
    spares.begin_feed(spare, 3)
    assert spare.asked == (3, 3)
    assert spares.look(1.0, 4) == ([], [spare])
    assert spare.asked == (3, 4)


def test_one_that_does_not_catch_up_is_left_for_good(
    spares: Spares[PlainPeer], fed: Spare[PlainPeer]
) -> None:
    hear(spares, progress(7), at=2.0)
    assert spares.look(CATCH_UP_S + 2.0, 9) == ([], [fed])
    assert spares.look(CATCH_UP_S + 2.1, 9) == ([fed], [])
    assert fed.failure == "it was not up to date for 60 s"
    spares.remove(fed)
    assert "s" in (spares.seek(1, CHAIN, 0.0) or ())


# What it tells.


@pytest.mark.parametrize(
    ("branches", "needed", "taken"),
    [(True, True, True), (True, False, True), (False, True, False), (False, False, True)],
)
def test_a_spare_takes_branches_where_the_chain_does(
    spares: Spares[PlainPeer],
    spare: Spare[PlainPeer],
    branches: bool,
    needed: bool,
    taken: bool,
) -> None:
    opened = Opened(session=SESSION, branches=branches, taps=True)
    spares.hear(Received("s", opened, 0.0), branches=needed)
    assert (spare.opened, spare.taps) == (taken, True)
    assert spare.failure == ("" if taken else "it takes no branches")


def test_before_it_is_open_any_fault_ends_it(
    spares: Spares[PlainPeer], spare: Spare[PlainPeer]
) -> None:
    """Even that its next peer does not answer: it will not open."""
    hear(spares, fault(FaultCode.NEXT_UNREACHABLE, "c"))
    assert (spare.failure, spare.reaches) == ("next_unreachable", True)


def test_a_fault_of_its_own_ends_it(spares: Spares[PlainPeer], fed: Spare[PlainPeer]) -> None:
    hear(spares, fault(FaultCode.DRAINING))
    assert (fed.failure, spares.ready(0.0)) == ("draining", ())
    hear(spares, fault(FaultCode.DRAINING).model_copy(update={"text": "it goes at noon"}))
    assert fed.failure == "it goes at noon"


def test_the_last_peers_spare_has_none_to_blame(spares: Spares[PlainPeer]) -> None:
    last = spares.add(2, CHAIN, S, 0.0)
    hear(spares, Opened(session=SESSION))
    hear(spares, fault(FaultCode.NEXT_UNREACHABLE))
    assert (last.failure, last.reaches) == ("next_unreachable", True)


def test_the_last_peers_spare_reaches_the_client(spares: Spares[PlainPeer]) -> None:
    last = spares.add(2, CHAIN, S, 0.0)
    spares.begin_feed(last, 0)
    hear(spares, progress(0))
    assert last.could_step_in(0.0, broken=("c",))
    assert spares.follow(CHAIN, broken=()) == ([], [])
    assert spares.follow((A, T, C), broken=()) == ([last], []), "another one would feed it"


def test_what_comes_out_of_turn_ends_it(spares: Spares[PlainPeer], fed: Spare[PlainPeer]) -> None:
    hear(spares, Close(session=SESSION))
    assert fed.failure == "it sent Close out of turn"


def test_what_others_send_is_not_heard(spares: Spares[PlainPeer], fed: Spare[PlainPeer]) -> None:
    hear(spares, fault(FaultCode.INTERNAL), of="b")
    spares.hear(Lost("c", "it hung up", 1.0), branches=True)
    assert spares.ready(0.0) == (S,)


def test_a_spare_is_unsure_if_a_message_to_it_was_interrupted(spare: Spare[PlainPeer]) -> None:
    with spare.telling():
        assert spare.unsure
    assert not spare.unsure
    with pytest.raises(ConnectionError), spare.telling():
        raise ConnectionError
    assert spare.unsure


# The chain changes.


def test_while_the_chain_stays_all_stay(spares: Spares[PlainPeer], spare: Spare[PlainPeer]) -> None:
    assert spares.follow(CHAIN, broken=()) == ([], [])


def test_one_whose_member_or_feeder_is_gone_is_left_and_may_be_taken_again(
    spares: Spares[PlainPeer], spare: Spare[PlainPeer]
) -> None:
    assert spares.follow((A, T, C), broken=()) == ([spare], []), "another one has its place"
    assert spares.follow((T, B, C), broken=()) == ([spare], []), "another one would feed it"
    assert spares.follow(CHAIN, broken={"a"}) == ([spare], []), "it is not fed any more"
    spares.remove(spare)
    assert spares.seek(1, CHAIN, 0.0) == {"a", "b", "c"}, "it has not failed"


def test_the_first_peers_spare_needs_no_feeder(spares: Spares[PlainPeer]) -> None:
    first = spares.add(0, CHAIN, S, 0.0)
    assert spares.follow((A, T, C), broken={"a"}) == ([], [first])
    assert first.onward == T.hop
    assert spares.follow((T, B, C), broken=()) == ([first], []), "another one has its place"


def test_one_whose_next_peer_was_replaced_is_told_once(
    spares: Spares[PlainPeer], fed: Spare[PlainPeer]
) -> None:
    replaced = (A, B, T)
    assert spares.follow(replaced, broken=()) == ([], [fed])
    assert (fed.onward, fed.reaches) == (hop("t"), False), "until it says so"
    assert spares.follow(replaced, broken=()) == ([], [])


def test_one_is_not_sent_to_a_peer_that_has_failed(
    spares: Spares[PlainPeer], fed: Spare[PlainPeer]
) -> None:
    assert spares.follow((A, B, T), broken={"t"}) == ([], [])
    assert (fed.onward, fed.reaches) == (C.hop, True)


def test_a_peer_accepts_frames_of_the_one_before_and_of_its_spare(
    spares: Spares[PlainPeer], spare: Spare[PlainPeer]
) -> None:
    assert spares.senders(CHAIN) == [(B, ("a",)), (C, ("b", "s"))]
    assert spares.senders((A,)) == []
