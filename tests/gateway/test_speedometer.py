"""The speed of a gateway, by a clock that the test moves."""

from dataclasses import replace

from helpers.clock import Clock
from helpers.text_stats import text_stats, time_share
from swarm.gateway.speedometer import HISTORY_S, LAST, LoopTimes, Speedometer
from swarm.outputs import Measured, Piece, RouteStop
from swarm.routing.chain import Stage

DRAFTED = Piece(5, "a", "drafted", drafted_id=5)
CORRECTED = Piece(6, "b", "corrected", drafted_id=5)
OWN = Piece(7, "c", "target")
ROUTE = (RouteStop("one", (0, 2), 10.0), RouteStop("two", (2, 4), 20.0))
STAGES = (Stage("one", 0, 2), Stage("two", 2, 4))


def test_speed_is_that_of_the_last_whole_seconds() -> None:
    clock = Clock(1000.5)
    meter = Speedometer(clock)
    run = meter.began("tiny")
    for _ in range(10):
        run.piece(OWN)
    assert meter.speed().tokens_per_second == 0.0  # this second is not over
    clock.now += 1
    assert meter.speed().tokens_per_second == 2.0
    assert meter.speed().history[-2:] == (10, 0)
    clock.now += 5
    assert meter.speed().tokens_per_second == 0.0
    assert sum(meter.speed().history) == 10
    clock.now += HISTORY_S
    assert sum(meter.speed().history) == 0
    assert len(meter.speed().history) == HISTORY_S


def test_acceptance_is_the_share_of_drafts_kept() -> None:
    meter = Speedometer(Clock(1000.5))
    run = meter.began("tiny")
    assert meter.speed().acceptance is None
    run.piece(OWN)
    assert meter.speed().acceptance is None
    for piece in (DRAFTED, DRAFTED, DRAFTED, CORRECTED):
        run.piece(piece)
    assert meter.speed().acceptance == 0.75
    (running,) = meter.speed().running
    assert (running.tokens, running.acceptance) == (5, 0.75)


def test_a_loop_is_told_by_hop_and_without_the_prompts() -> None:
    meter = Speedometer(Clock(1000.5))
    run = meter.began("tiny")
    run.route(ROUTE)
    run.measured(None)
    assert meter.speed().loop is None
    run.measured(Measured(500.0, (100.0, 100.0), (0.0, 0.0), STAGES))
    assert meter.speed().loop is not None
    for answer in (
        Measured(50.0, (5.0, 10.0), (1.0, 0.0), STAGES),
        Measured(70.0, (7.0, 10.0), (3.0, 0.0), STAGES),
    ):
        run.measured(answer)
        run.measured(answer)  # a loop brings several tokens
    loop = meter.speed().loop
    assert isinstance(loop, LoopTimes)
    assert loop.loop_ms == 60.0
    assert [(hop.peer_id, hop.compute_ms, hop.queue_ms) for hop in loop.hops] == [
        ("one", 6.0, 2.0),
        ("two", 10.0, 0.0),
    ]
    assert loop.links_ms == 60.0 - 18.0
    for other in (
        (*ROUTE, RouteStop("three", (4, 6), 5.0)),
        (ROUTE[0], replace(ROUTE[1], peer_id="three")),
    ):
        run.route(other)  # of this chain nothing is known yet
        assert meter.speed().loop is None
    run.route(ROUTE)
    assert meter.speed().loop == loop


def test_generations_that_ended_are_told_the_newest_first_and_only_so_many() -> None:
    clock = Clock(1000.5)
    meter = Speedometer(clock)
    for number in range(LAST + 5):
        run = meter.began(f"m{number}")
        run.route(ROUTE)
        run.piece(OWN)
        clock.now += 2
        if number % 2:
            run.finished(text_stats())
        run.ended()
        run.ended()
    speed = meter.speed()
    assert speed.running == ()
    assert [past.model for past in speed.last] == [f"m{LAST + 4 - i}" for i in range(LAST)]
    stopped, finished = speed.last[:2]
    assert (stopped.finish_reason, stopped.seconds, stopped.tokens, stopped.peers) == (
        None,
        2.0,
        1,
        2,
    )
    assert (finished.finish_reason, finished.ago_s) == ("length", 2.0)


def test_what_the_last_text_waited_for_is_told_until_another_one_ends() -> None:
    meter = Speedometer(Clock(1000.5))
    assert meter.speed().spent is None
    share = time_share(links=0.9)
    for model, figures in (
        ("one", text_stats(share=share, new_tokens=20, loop_ms=80.0)),
        ("two", text_stats()),
        ("stopped", None),
    ):
        run = meter.began(model)
        if figures is not None:
            run.finished(figures)
        run.ended()
    spent = meter.speed().spent
    assert spent is not None
    assert (spent.model, spent.share) == ("one", share)
    assert spent.bottleneck is not None
    assert "80 ms" in spent.bottleneck
