"""What a peer grants to whom, by the books alone: no links, no waiting."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest

from helpers.clock import Clock
from peers.access.control import AccessControl, LimitReached, summary
from peers.access.limits import AccessLimits
from peers.compute.cache_budget import CacheFull
from swarm.util.rates import Rate


@dataclass(frozen=True)
class From:
    """As much of a link as admission knows."""

    peer_id: str
    address: str = "192.0.2.1"
    relayed: bool = False


def link_of(client: str, **changes: Any) -> Any:
    return From(client, **changes)


async def at_once(_: float) -> None:
    """Sleep for no time."""


def refused(admission: AccessControl, link: Any, tokens: int, total: int) -> str:
    try:
        admission.check(link, tokens, total)
    except LimitReached as refusal:
        return refusal.kind
    admission.reserve(link, tokens)
    return ""


def test_a_share_counts_only_while_others_want_room() -> None:
    clock = Clock()
    admission = AccessControl(AccessLimits(), clock)
    alice, bob = link_of("alice"), link_of("bob", address="192.0.2.2")
    assert refused(admission, alice, 600, 1000) == ""
    admission.no_room(bob, CacheFull(500, 400, 1000, 100.0))
    assert admission.over_share(alice, 1000)
    assert refused(admission, alice, 10, 1000) == "cache"
    assert refused(admission, bob, 400, 1000) == ""
    assert not admission.over_share(alice, 1000), "bob has what he wanted"
    assert refused(admission, alice, 0, 1000) == ""
    admission.no_room(bob, CacheFull(500, 400, 1000, None))
    assert not admission.over_share(alice, 1000), "what never fits is wanted of nobody"
    admission.no_room(bob, CacheFull(500, 400, 1000, 100.0))
    clock.now += 31
    assert not admission.over_share(alice, 1000), "bob asks no more"


def test_many_identities_of_one_address_share_what_it_may_have() -> None:
    admission = AccessControl(AccessLimits(sessions_each=(2, 3)))
    assert [refused(admission, link_of(name), 1, 100) for name in "abcd"] == [
        "",
        "",
        "",
        "sessions",
    ]
    assert refused(admission, link_of("a", address="192.0.2.9"), 1, 100) == ""
    assert refused(admission, link_of("a", address="192.0.2.9"), 1, 100) == "sessions"
    assert refused(admission, link_of("e", relayed=True), 1, 100) == "", (
        "a relay's address says nothing"
    )
    admission.release(link_of("a"), 1)
    assert refused(admission, link_of("d"), 1, 100) == ""


def test_whoever_has_proved_nothing_counts_by_its_address() -> None:
    admission = AccessControl(AccessLimits(links_each=(1, 2)))
    assert [admission.enter(link_of("")) for _ in range(3)] == [True, True, False]
    admission.leave(link_of(""))
    assert admission.enter(link_of(""))
    assert admission.refusals == {"links": 1}


async def openings(admission: AccessControl, *clients: str) -> list[bool]:
    """Which of these clients of one address may open a session, one after the other."""
    taken = []
    for client in clients:
        try:
            await admission.opening(link_of(client))
            taken.append(True)
        except LimitReached:
            taken.append(False)
    return taken


async def test_a_client_pays_nothing_for_what_its_address_has_used_up() -> None:
    clock = Clock()
    limits = AccessLimits(
        openings=Rate(1e-6, 2), openings_of_address=Rate(1.0, 2), violations=Rate(1e-6, 1)
    )
    admission = AccessControl(limits, clock, at_once)
    assert await openings(admission, "flooder", "flooder") == [True, True]
    assert await openings(admission, *["client"] * 100) == [False] * 100
    assert not admission.banned(link_of("client", address="192.0.2.9")), (
        "it is not the one that floods"
    )
    clock.now += 2.0
    assert await openings(admission, "client", "client", "client") == [True, True, False]


async def test_an_address_pays_nothing_for_what_one_client_has_used_up() -> None:
    admission = AccessControl(
        AccessLimits(openings=Rate(1e-6, 1), openings_of_address=Rate(1e-6, 3)), Clock(), at_once
    )
    assert await openings(admission, *["flooder"] * 10) == [True] + [False] * 9
    assert await openings(admission, "a", "b", "c") == [True, True, False]
    assert not admission.banned(link_of("another")), "its address did not flood"


def test_bans_end_and_grow() -> None:
    clock, attacker = Clock(), link_of("attacker")
    admission = AccessControl(replace(AccessLimits(), violations=Rate(1e-6, 1), ban_s=10.0), clock)
    for ban_s in (10.0, 20.0):
        for _ in range(2):
            admission.violated(attacker)
        assert admission.banned(attacker)
        assert not admission.banned(link_of("another"))
        clock.now += ban_s
        assert not admission.banned(attacker)


def test_a_summary_tells_what_is_new() -> None:
    before = Counter(links=2, openings=1)
    assert summary(before, Counter(links=5, openings=1, cache=7)) == "7 cache, 3 links"
    assert summary(before, before) == ""


async def test_pauses_are_bounded() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    admission = AccessControl(AccessLimits(nbytes=Rate(1.0, 1)), Clock(), sleep)
    await admission.pace(link_of("a"), 1000, forwarded=False)
    await admission.pace(link_of("b"), 1000, forwarded=True)
    assert slept == [admission.limits.longest_pause_s]


async def _openings(admission: AccessControl, link: Any) -> int:
    """How many sessions may be opened at once."""
    for count in range(1000):
        try:
            await admission.opening(link)
        except LimitReached:
            return count
    return 1000


@pytest.mark.parametrize(
    ("claimed", "bound", "granted"), [(1, 4, 8), (3, 4, 24), (4, 4, 32), (10_000, 4, 32), (4, 1, 8)]
)
async def test_a_gateway_opens_for_as_many_as_it_asks_for_within_a_bound(
    claimed: int, bound: int, granted: int
) -> None:
    limits = AccessLimits(
        openings=Rate(4.0, 8), openings_of_address=Rate(16.0, 32), gateway_clients=bound
    )
    admission = AccessControl(limits, Clock(), at_once)
    gateway = link_of("gateway")
    assert admission.enter(gateway)
    admission.speaks_for(gateway, claimed)
    assert await _openings(admission, gateway) == granted
    admission.leave(gateway)
    assert not admission._clients
    assert await _openings(admission, link_of("alice", address="192.0.2.2")) == 8


async def test_an_address_may_do_no_less_than_the_gateway_behind_it() -> None:
    limits = AccessLimits(
        openings=Rate(4.0, 8), openings_of_address=Rate(16.0, 32), gateway_clients=16
    )
    admission = AccessControl(limits, Clock(), at_once)
    gateway = link_of("gateway")
    assert admission.enter(gateway)
    admission.speaks_for(gateway, 16)
    assert await _openings(admission, gateway) == 16 * 8
    admission.leave(gateway)


def test_a_gateway_holds_more_sessions_and_no_more_of_the_cache_while_others_want_it() -> None:
    admission = AccessControl(AccessLimits(sessions_each=(2, 8)), Clock())
    gateway = link_of("gateway")
    assert admission.enter(gateway)
    admission.speaks_for(gateway, 3)
    assert [refused(admission, gateway, 60, 1000) for _ in range(7)] == [""] * 6 + ["sessions"]
    admission.no_room(link_of("bob", address="192.0.2.2"), CacheFull(500, 400, 1000, 100.0))
    admission.release(gateway, 60)
    assert refused(admission, gateway, 300, 1000) == "cache"
