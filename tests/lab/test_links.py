"""Packets on a wire, with the test's own clock and chance."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.links import MAX_QUEUE_S, Link, Statistics, Wire
from swarm.errors import ConfigError

LINKS = st.builds(
    Link,
    delay_ms=st.floats(0, 200),
    jitter_ms=st.floats(0, 50),
    loss=st.floats(0, 1),
    mbit_per_s=st.none() | st.floats(0.1, 1000),
)
SENDINGS = st.lists(
    st.tuples(st.floats(0, 0.1), st.integers(20, 1500), st.none() | LINKS), min_size=1, max_size=60
)
SEEDS = st.integers(0, 2**32)
PACKET = bytes(1250)  # 10 000 bits
LATE = 1e6  # a time by which everything has arrived
ROUNDING = 1e-9


def wire(link: Link, seed: int = 0) -> Wire:
    return Wire(link, random.Random(seed))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delay_ms", -1),
        ("delay_ms", math.nan),
        ("delay_ms", 20_000),
        ("jitter_ms", -1),
        ("loss", 1.1),
        ("loss", -0.1),
        ("mbit_per_s", 0),
        ("mbit_per_s", math.inf),
        ("mbit_per_s", math.nan),
    ],
)
def test_a_link_that_cannot_be_names_its_field(field: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        Link(**{field: value})
    assert caught.value.field == field


@given(LINKS, SENDINGS, SEEDS)
def test_packets_keep_their_order_whatever_the_link_becomes(
    link: Link, sendings: list[tuple[float, int, Link | None]], seed: int
) -> None:
    line, now, sent = wire(link, seed), 0.0, []
    for number, (pause, size, becomes) in enumerate(sendings):
        now += pause
        line.link = link = becomes or link
        packet = number.to_bytes(2, "big") + bytes(size - 2)
        due = line.send(packet, now)
        if due is not None:
            assert due >= now + link.delay_ms * 1e-3
            sent.append((due, packet))
    assert all(earlier <= later for (earlier, _), (later, _) in pairwise(sent))
    arrived = [packet for due, _ in sent for packet in line.receive(due)]
    assert arrived == [packet for _, packet in sent]
    assert line.receive(LATE) == []
    assert line.statistics.lost == len(sendings) - len(sent)


@given(st.floats(0, 200), st.floats(0, 50), st.floats(0, 10))
def test_without_loss_and_limit_a_packet_takes_the_delay_and_some_jitter(
    delay: float, jitter: float, now: float
) -> None:
    due = wire(Link(delay_ms=delay, jitter_ms=jitter)).send(PACKET, now)
    assert due is not None
    assert delay - 1e-6 <= (due - now) * 1e3 <= delay + jitter + 1e-6


@given(st.floats(0, 1), SEEDS)
def test_the_share_that_is_lost_is_the_one_asked_for(loss: float, seed: int) -> None:
    line, sent = wire(Link(loss=loss), seed), 2000
    for _ in range(sent):
        line.send(PACKET, 0.0)
    six_deviations = 6 * math.sqrt(sent * loss * (1 - loss))
    assert abs(line.statistics.lost - sent * loss) <= six_deviations + ROUNDING
    assert len(line.receive(0.0)) == sent - line.statistics.lost


@given(
    st.floats(0.1, 1000),
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(20, 1500)), min_size=1, max_size=60),
)
def test_bandwidth_sends_one_packet_after_the_other(
    mbit_per_s: float, sendings: list[tuple[float, int]]
) -> None:
    line, now, free_at = wire(Link(delay_ms=30, mbit_per_s=mbit_per_s)), 0.0, 0.0
    for pause, size in sendings:
        now += pause
        due = line.send(bytes(size), now)
        if free_at - now > MAX_QUEUE_S + ROUNDING:
            assert due is None
        elif due is not None:
            free_at = max(now, free_at) + size * 8 / (mbit_per_s * 1e6)
            assert due == pytest.approx(free_at + 0.03)
        else:
            assert free_at - now > MAX_QUEUE_S - ROUNDING


def test_a_full_queue_drops_the_tail_and_the_rest_comes_at_the_pace_of_the_link() -> None:
    line = wire(Link(mbit_per_s=10))  # a packet a millisecond
    kept = [due for _ in range(1000) if (due := line.send(PACKET, 0.0)) is not None]
    assert len(kept) == pytest.approx(MAX_QUEUE_S * 1e3, abs=2)
    assert kept == pytest.approx([(n + 1) * 1e-3 for n in range(len(kept))])
    assert line.statistics.lost == 1000 - len(kept)
    assert line.send(PACKET, 1.0) == pytest.approx(1.001)  # and then it is free again


def test_a_packet_that_takes_longer_than_the_queue_may_still_passes_a_free_link() -> None:
    assert wire(Link(mbit_per_s=0.001)).send(PACKET, 0.0) == pytest.approx(10.0)


def test_a_cut_loses_what_is_under_way_and_all_that_follows_until_restored() -> None:
    line = wire(Link(delay_ms=1000))
    line.send(b"under way", 0.0)
    line.cut()
    assert line.send(b"too late", 0.1) is None
    assert line.receive(LATE) == []
    line.restore()
    line.link = Link(delay_ms=10)
    assert line.send(b"again", 0.2) == pytest.approx(0.21)  # waits for none of the lost
    assert line.receive(LATE) == [b"again"]
    assert (line.statistics.packets, line.statistics.lost) == (3, 2)


def test_statistics_count_what_was_sent_and_how_late_it_was_fetched() -> None:
    line = wire(Link(delay_ms=10))
    assert line.statistics == Statistics()
    line.send(b"four", 0.0)
    line.send(b"seven..", 0.001)
    assert line.receive(0.005) == []
    assert line.receive(0.0105) == [b"four"]
    assert line.receive(0.0112) == [b"seven.."]
    assert line.statistics.worst_late_ms == pytest.approx(0.5)
    assert replace(line.statistics, worst_late_ms=0.0) == Statistics(packets=2, bytes=11)
