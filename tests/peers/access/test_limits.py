"""Counters with a clock that the test owns."""

import pytest

from helpers.clock import Clock
from peers.access.limits import Bans, Holding, Holdings, RecentDemand, network_of


def test_bans_double_and_end(clock: Clock) -> None:
    bans = Bans(10.0, 30.0, clock, most_keys=2)
    assert not bans.left_s("a")
    assert [bans.ban("a") for _ in range(4)] == [10, 20, 30, 30]
    clock.now += 29
    assert (bans.left_s("a"), bans.active) == (1, 1)
    clock.now += 1
    assert (bans.left_s("a"), bans.active) == (0, 0)
    bans.ban("b"), bans.ban("c")
    assert len(bans) == 2


def test_holdings_are_forgotten_when_nothing_is_held() -> None:
    holdings = Holdings()
    holdings.add("a", links=1, tokens=5)
    holdings.add("a", sessions=1)
    assert holdings.of("a") == Holding(1, 1, 5)
    holdings.add("a", links=-1, sessions=-1, tokens=-5)
    assert not len(holdings)
    assert holdings.of("a") == Holding()


def test_wanting_is_remembered_for_a_while(clock: Clock) -> None:
    wanting = RecentDemand(30.0, clock, most_keys=2)
    wanting.add("a")
    assert (wanting.others_than("a"), wanting.others_than("b")) == (False, True)
    clock.now += 30
    assert not wanting.others_than("b")
    wanting.add("a")
    wanting.remove("a")
    assert not wanting.others_than("b")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9%eth0", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("...abcdefgh", "...abcdefgh"),
    ],
)
def test_addresses_of_one_network_count_as_one(address: str, network: str) -> None:
    assert network_of(address) == network
