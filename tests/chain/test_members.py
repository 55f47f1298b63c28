"""Whom a fault speaks against, whoever says it and whatever has happened to the chain meanwhile."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from swarm.chain.members import Members
from swarm.chain.stage import ChainLink
from swarm.routing.chain import Stage
from swarm.wire.messages import Fault, FaultCode, Hop

NAMES = "abcdef"


@dataclass(frozen=True)
class Link:
    """As much of a `ChainLink` as is needed."""

    stage: Stage

    @property
    def peer_id(self) -> str:
        return self.stage.peer_id


def link(name: str) -> ChainLink:
    return Link(Stage(name, 0, 1))  # type: ignore[return-value]


def hop(name: str) -> Hop:
    return Hop.model_construct(peer_id=name, address="127.0.0.1:1", certificate="0" * 64)


def fault(code: FaultCode, peer: str | None = None) -> Fault:
    return Fault.model_construct(code=code, text="", session=b"0" * 16, peer=peer, retry_ms=None)


def chain_of(names: str) -> tuple[Members, list[ChainLink]]:
    members, links = Members(), [link(name) for name in names]
    for each, following in zip(links, [*links[1:], None], strict=True):
        members.admit(each, following and hop(following.peer_id))
    return members, links


def test_a_peer_may_blame_the_one_that_it_sends_to() -> None:
    members, chain = chain_of("abc")
    unreachable = FaultCode.NEXT_UNREACHABLE
    assert members.to_blame("a", fault(unreachable, "b"), chain) == link("b")
    assert members.to_blame("a", fault(unreachable, "c"), chain) == link("a")
    assert members.to_blame("b", fault(unreachable, "a"), chain) == link("b")
    assert members.to_blame("b", fault(unreachable), chain) == link("b")


def test_what_is_not_finite_comes_from_the_peer_before() -> None:
    members, chain = chain_of("abc")
    for named in (None, "b"):
        assert members.to_blame("c", fault(FaultCode.NOT_FINITE, named), chain) == link("b")
    assert members.to_blame("c", fault(FaultCode.NOT_FINITE, "a"), chain) == link("c")
    assert members.to_blame("a", fault(FaultCode.NOT_FINITE), chain) == link("a"), (
        "we sent it tokens"
    )


def test_a_fault_that_names_nobody_says_nothing_against_those_that_took_the_place_of_another() -> (
    None
):
    """While the gap is filled the peer behind may still complain of what the old one sent it."""
    members, chain = chain_of("abc")
    members.leave([chain[1]])
    members.admit(link("d"), hop("c"))
    assert members.to_blame("c", fault(FaultCode.NOT_FINITE), chain) is None
    members.leads(chain[0], hop("d"))
    chain[1] = link("d")
    assert members.to_blame("c", fault(FaultCode.NOT_FINITE), chain) == link("d")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none()),
            st.tuples(st.just("admit"), st.sampled_from(NAMES), st.sampled_from([None, *NAMES])),
            st.tuples(st.just("leads"), st.sampled_from(NAMES), st.sampled_from([None, *NAMES])),
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
            members.leave([link(name)])
        else:
            getattr(members, step)(link(name), onward and hop(onward))
    blamed = members.to_blame(reporter, fault(code, named), chain)
    assert blamed is None or blamed.peer_id in members
    assert blamed is None or blamed.peer_id == reporter or named in (None, blamed.peer_id)
