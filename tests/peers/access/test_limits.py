"""Counters with a clock that the test owns."""

import pytest

from peers.access.limits import Bans, Buckets, Holding, Holdings, Rate, Wanting, network_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_is_free_and_then_a_rate_holds(clock: Clock) -> None:
    buckets = Buckets(Rate(2.0, 3), clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0, "others have buckets of their own"
    clock.now += 0.5
    assert (buckets.take("a"), buckets.take("a")) == (0, 0.5)
    clock.now += 100
    assert [buckets.take("a") for _ in range(4)][3] > 0, "more than a burst is never saved"


def test_asking_how_long_it_takes_takes_nothing(clock: Clock) -> None:
    buckets = Buckets(Rate(2.0, 1), clock)
    assert [buckets.wait_s("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == 0
    assert [buckets.wait_s("a") for _ in range(3)] == [0.5, 0.5, 0.5]


def test_what_was_overdrawn_is_paid_off_by_waiting(clock: Clock) -> None:
    buckets = Buckets(Rate(10.0, 5), clock)
    assert buckets.draw("a", 5) == 0
    assert buckets.draw("a", 20) == 2.0
    clock.now += 2.0
    assert buckets.draw("a", 0) == 0


def test_what_did_not_come_about_is_given_back(clock: Clock) -> None:
    buckets = Buckets(Rate(0.1, 1), clock)
    assert buckets.take("a") == 0
    buckets.give_back("a")
    buckets.give_back("a")
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    buckets.forget("a")
    assert buckets.take("a") == 0


def test_of_many_keys_the_least_recently_used_is_forgotten(clock: Clock) -> None:
    buckets = Buckets(Rate(0.001, 1), clock, most_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key)
    assert len(buckets) == 2
    assert buckets.take("c") > 0


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
    wanting = Wanting(30.0, clock, most_keys=2)
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


@pytest.mark.parametrize("wrong", [(0, 5), (1, 0.5)])
def test_a_rate_is_checked(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no rate"):
        Rate(*wrong)
