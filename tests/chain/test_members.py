"""Whom a fault speaks against, whichever peer reports it and however the chain has changed."""

from hypothesis import given
from hypothesis import strategies as st

from helpers.plain_peers import PlainPeer, fault, hop, plain_peer
from swarm.chain.members import Members
from swarm.wire.faults import FaultCode

NAMES = "abcdef"


def chain_of(names: str) -> tuple[Members[PlainPeer], list[PlainPeer]]:
    members, links = Members[PlainPeer](), [plain_peer(name) for name in names]
    for each, following in zip(links, [*links[1:], None], strict=True):
        members.admit(each, following and hop(following.peer_id))
    return members, links


def test_a_peer_may_blame_the_one_that_it_sends_to() -> None:
    members, chain = chain_of("abc")
    unreachable = FaultCode.NEXT_UNREACHABLE
    assert members.to_blame("a", fault(unreachable, "b"), chain) == plain_peer("b")
    assert members.to_blame("a", fault(unreachable, "c"), chain) == plain_peer("a")
    assert members.to_blame("b", fault(unreachable, "a"), chain) == plain_peer("b")
    assert members.to_blame("b", fault(unreachable), chain) == plain_peer("b")


def test_what_is_not_finite_comes_from_the_peer_before() -> None:
    members, chain = chain_of("abc")
    for named in (None, "b"):
        assert members.to_blame("c", fault(FaultCode.NOT_FINITE, named), chain) == plain_peer("b")
    assert members.to_blame("c", fault(FaultCode.NOT_FINITE, "a"), chain) == plain_peer("c")
    assert members.to_blame("a", fault(FaultCode.NOT_FINITE), chain) == plain_peer("a"), (
        "we sent it tokens"
    )


def test_a_fault_that_names_nobody_says_nothing_against_those_that_took_the_place_of_another() -> (
    None
):
    """While the gap is filled the peer behind may still complain of what the old one sent it."""
    members, chain = chain_of("abc")
    members.leave([chain[1]])
    members.admit(plain_peer("d"), hop("c"))
    assert members.to_blame("c", fault(FaultCode.NOT_FINITE), chain) is None
    members.follow(chain[0], hop("d"))
    chain[1] = plain_peer("d")
    assert members.to_blame("c", fault(FaultCode.NOT_FINITE), chain) == plain_peer("d")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none()),
            st.tuples(st.just("admit"), st.sampled_from(NAMES), st.sampled_from([None, *NAMES])),
            st.tuples(st.just("follow"), st.sampled_from(NAMES), st.sampled_from([None, *NAMES])),
        ),
        max_size=12,
    ),
    st.sampled_from(NAMES),
    st.sampled_from(FaultCode),
    st.sampled_from([None, *NAMES]),
)
def test_only_a_peer_that_takes_part_is_ever_blamed(
    steps: list[tuple[str, str, str | None]], reporter: str, code: FaultCode, named: str | None
) -> None:
    members, chain = chain_of("abcd")
    for step, name, onward in steps:
        if step == "leave":
            members.leave([plain_peer(name)])
        else:
            getattr(members, step)(plain_peer(name), onward and hop(onward))
    blamed = members.to_blame(reporter, fault(code, named), chain)
    assert blamed is None or blamed.peer_id in members
    assert blamed is None or blamed.peer_id == reporter or named in (None, blamed.peer_id)
