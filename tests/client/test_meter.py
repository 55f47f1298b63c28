"""What is measured is summed up by the definitions that the field uses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.client.meter import Meter, TextFacts
from swarm.decoding.acceptance import SourceAcceptance
from swarm.decoding.counts import Counts
from swarm.outputs import Measured, RouteStop, StageTimes
from swarm.routing.chain import Stage


@pytest.fixture
def meter(clock):
    meter = Meter(clock)
    meter.start()
    return meter


def sum_up(meter, counts, **changed):
    facts = {
        "prompt_tokens": 5,
        "bytes_sent": 70,
        "bytes_received": 90,
        "seed": None,
        "finish_reason": "stop",
    }
    facts |= {"exact": True, "rule": "strict", "draft_error": None}
    return meter.stats(counts, TextFacts(**{**facts, **changed}))


def test_rates_of_a_speculative_generation(meter, clock):
    for loop_ms, compute_ms, tokens in [
        (500.0, (50.0, 60.0), 3),
        (100.0, (4.0, 6.0), 5),
        (120.0, (6.0, 8.0), 2),
    ]:
        meter.drafted(4, 0.02)
        clock.now += 1.0
        meter.loop(Measured(loop_ms, compute_ms), tokens)
    stats = sum_up(meter, Counts(loops=3, drafted=12, accepted=7, rejected=3, flushes=2), seed=9)
    assert (stats.prompt_tokens, stats.new_tokens, stats.loops, stats.rejections) == (5, 10, 3, 3)
    assert (stats.seconds, stats.time_to_first_token_ms) == (3.0, 1000.0)
    assert stats.tokens_per_second == pytest.approx(10 / 3)
    assert stats.draft_acceptance_rate == pytest.approx(7 / 12)
    assert stats.mean_acceptance_length == pytest.approx(10 / 3)
    assert stats.draft_ms_per_token == pytest.approx(5.0)
    assert (stats.bytes_sent, stats.bytes_received, stats.seed) == (70, 90, 9)
    assert (stats.verification, stats.finish_reason) == ("exact", "stop")


def test_the_first_loop_carries_the_prompt_and_is_left_out_of_the_means(meter):
    for loop_ms, compute_ms in [(500.0, (50.0, 60.0)), (100.0, (4.0, 6.0)), (120.0, (6.0, 8.0))]:
        meter.loop(Measured(loop_ms, compute_ms, (0.0, 2.0)), 1)
    stats = sum_up(meter, Counts(loops=3))
    assert stats.loop_ms == pytest.approx(110.0)
    assert stats.least_loop_ms == 100.0
    assert stats.stage_compute_ms == pytest.approx((5.0, 7.0))
    assert stats.stage_queue_ms == pytest.approx((0.0, 2.0))


STAGE = {
    name: Stage(name, first, first + 2) for name, first in (("a", 0), ("b", 2), ("c", 2), ("d", 4))
}
OTHER_LAYERS = Stage("b", 3, 4)  # a peer may serve other layers in another chain
TOOK_MS = {**{stage: 10.0 * n for n, stage in enumerate(STAGE.values(), 1)}, OTHER_LAYERS: 99.0}


@given(st.lists(st.permutations(list(TOOK_MS)), min_size=2, max_size=9), st.data())
def test_whoever_comes_and_goes_each_peer_is_credited_with_its_own_times(chains, data):
    """Every loop goes over some chain; each peer takes as long as it always does, wherever it
    stands."""
    meter = Meter()
    for chain in chains:
        stages = tuple(chain[: data.draw(st.integers(1, len(chain)))])
        took = tuple(TOOK_MS[stage] for stage in stages)
        meter.loop(Measured(100.0, took, tuple(ms / 2 for ms in took), stages), 1)
    assert all(
        (t.compute_ms, t.queue_ms) == (TOOK_MS[s], TOOK_MS[s] / 2) for s, t in meter.stages.items()
    )
    seen = {stage for loop in meter.loops for stage in loop.stages}
    route = [RouteStop(stage.peer_id, (stage.first, stage.last), 1.0) for stage in TOOK_MS]
    stats = sum_up(meter, Counts(loops=len(chains)), route=route)
    assert stats.stage_compute_ms == tuple(
        TOOK_MS[stage] if stage in seen else 0.0 for stage in TOOK_MS
    )
    assert stats.stage_queue_ms == tuple(
        TOOK_MS[stage] / 2 if stage in seen else 0.0 for stage in TOOK_MS
    )


def test_the_loop_of_the_prompt_is_credited_to_nobody(meter):
    chain = (STAGE["a"], STAGE["b"])
    meter.loop(Measured(500.0, (50.0, 60.0), (0.0, 0.0), chain), 1)
    assert meter.stages == {}
    meter.loop(Measured(100.0, (5.0,)), 1)  # one of the peers tells no time: whose is it?
    assert meter.stages == {}
    meter.loop(Measured(100.0, (5.0, 6.0), (), chain), 1)
    assert meter.stages == {STAGE["a"]: StageTimes(5.0, 0.0), STAGE["b"]: StageTimes(6.0, 0.0)}


def test_the_share_of_the_bound(meter, clock):
    """Ten tokens of which two were drafted wrongly: three loops of 100 ms and seven tokens of 4 ms
    are the least."""
    for positions, tokens in [(9, 1), (5, 4), (5, 5)]:
        meter.drafted(5, 0.02)  # 4 ms a token; the slower stage takes 15 / 5 = 3
        clock.now += 0.2
        meter.loop(Measured(100.0, (10.0, 15.0), positions=positions), tokens)
    counts = Counts(
        loops=3,
        drafted=15,
        accepted=6,
        rejected=3,
        branched=1,
        frames=4,
        sent=20,
        held=9,
        in_flight=10,
    )
    stats = sum_up(meter, counts)
    assert stats.bound_share == pytest.approx((3 * 100 + 7 * 4) / 600)
    assert (stats.branch_tokens, stats.wasted_tokens, stats.positions_per_token) == (1, 11, 2.0)
    assert (stats.frames, stats.in_flight_mean) == (4, 2.5)
    assert sum_up(meter, Counts(loops=3)).bound_share is None, "nothing was drafted"


def test_a_single_loop_is_its_own_mean(meter, clock):
    clock.now += 0.5
    meter.loop(Measured(500.0, (50.0,)), 1)
    stats = sum_up(meter, Counts(loops=1))
    assert (stats.loop_ms, stats.stage_compute_ms) == (500.0, (50.0,))


def test_the_first_draft_reads_the_prompt_and_is_left_out_of_the_mean(meter, clock):
    meter.drafted(1, 2.0)
    assert sum_up(meter, Counts()).draft_ms_per_token == pytest.approx(2000.0)
    for _ in range(3):
        meter.drafted(2, 0.02)
    assert sum_up(meter, Counts()).draft_ms_per_token == pytest.approx(10.0)


def test_plain_decoding_has_no_draft_figures(meter, clock):
    clock.now += 0.5
    meter.loop(Measured(500.0, (50.0,)), 1)
    stats = sum_up(meter, Counts(loops=1))
    assert (stats.draft_acceptance_rate, stats.draft_ms_per_token) == (None, None)
    assert stats.mean_acceptance_length == 1.0


def test_before_anything_happened_there_are_no_rates(meter):
    stats = sum_up(meter, Counts())
    assert (
        stats.seconds,
        stats.tokens_per_second,
        stats.time_to_first_token_ms,
        stats.loop_ms,
    ) == (0, 0, 0, 0)
    assert (stats.mean_acceptance_length, stats.stage_compute_ms) == (None, ())


def test_what_a_rule_let_pass_is_told(meter):
    counts = Counts(accepted=5, relaxed=2, deficit_nats=0.7, rejected=3, key=1)
    counts.judged_at, counts.kept_at, counts.histogram = [4, 2], [3, 1], [1, 0, 2]
    counts.acceptance.count("model", 2, True)
    stats = sum_up(meter, counts, exact=False, rule="adaptive:tau=1", draft_error="it broke")
    assert (stats.verification, stats.rule, stats.draft_error) == (
        "relaxed",
        "adaptive:tau=1",
        "it broke",
    )
    assert (stats.relaxed_tokens, stats.deficit_nats, stats.key_tokens, stats.rejections) == (
        2,
        0.7,
        1,
        3,
    )
    assert (stats.acceptance_by_position, stats.acceptance_histogram) == ((0.75, 0.5), (1, 0, 2))
    assert stats.acceptance_by_source == (SourceAcceptance("model", (0, 1), (0, 1)),)
