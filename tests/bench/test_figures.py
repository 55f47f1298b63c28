"""Figures of a way are medians over the prompts, and ratios are taken prompt by prompt."""

import dataclasses

import pytest

from helpers.terminals import on_screens
from swarm.bench.compare import Comparison
from swarm.bench.figures import all_figures, best, figures
from swarm.bench.show import COLUMNS, EXPLAINED, cells, markdown, show_table
from swarm.bench.ways import ADAPTIVE, BRANCHES, PLAIN, STREAMING, window_of
from swarm.client.meter import Meter, TextFacts
from swarm.decoding.counts import Counts
from swarm.outputs import Generation, Measured

WINDOWS = [window_of(8), window_of(16)]
WAYS = [PLAIN, *WINDOWS, STREAMING, BRANCHES, ADAPTIVE]


def generation(tokens_per_second, tokens=(1, 2, 3, 4)):
    meter = Meter(iter((0.0, len(tokens) / tokens_per_second)).__next__)
    meter.start()
    meter.loop(Measured(100.0, (2.0, 3.0)), 5, len(tokens))
    counts = Counts(
        loops=1, drafted=8, accepted=2, rejected=2, branched=1, waits=2, frames=2, sent=8, held=3
    )
    stats = meter.stats(
        counts,
        TextFacts(
            prompt_tokens=1,
            bytes_sent=400,
            bytes_received=800,
            seed=None,
            exact=True,
            rule="strict",
            draft_error=None,
            failovers=(),
            finish_reason="length",
        ),
    )
    return Generation("", tuple(tokens), (), stats)


def comparison(**speeds):
    """Of one prompt: plainly ten tokens a second, the others as told or ten times as fast."""
    ways = {way.name: generation(speeds.get(way.name, 100.0)) for way in WAYS}
    return Comparison("hello", {**ways, PLAIN.name: generation(10.0)})


def test_speedups_are_taken_prompt_by_prompt():
    rows = [comparison(**{"streaming": speed}) for speed in (20.0, 90.0, 40.0)]
    row = figures(rows, STREAMING)
    assert (row.speedup, row.speedup_range) == (
        pytest.approx(4.0),
        (pytest.approx(2.0), pytest.approx(9.0)),
    )
    assert row.tokens_per_second == pytest.approx(40.0)


def test_rates_are_per_token():
    row = figures([comparison()], BRANCHES)
    assert (row.waits, row.frames, row.positions, row.wasted, row.branches) == (
        0.5,
        0.5,
        2.0,
        1.25,
        0.25,
    )
    assert (row.bytes_sent, row.bytes_received, row.stages_ms) == (100, 200, 5.0)
    assert row.alpha == 0.5


def test_only_exact_ways_promise_the_same_text():
    said = comparison()
    other = Comparison("hello", {**said.ways, BRANCHES.name: generation(50.0, (1, 2, 9, 4))})
    rows = {row.way: row.identical for row in all_figures([said, other], WAYS)}
    assert rows == {
        **{way.name: True for way in (PLAIN, *WINDOWS, STREAMING)},
        BRANCHES.name: False,
        ADAPTIVE.name: None,
    }


def test_the_best_window_is_what_streaming_has_to_beat():
    rows = all_figures([comparison(**{"window of 8": 40.0, "window of 16": 30.0})], WAYS)
    assert best(rows, WAYS).way == "window of 8"


def test_a_row_is_as_wide_as_its_head():
    row = figures([comparison()], STREAMING)
    assert len(cells(row)) == len(COLUMNS)
    head, line, first = markdown([row]).splitlines()
    assert head.count("|") == line.count("|") == first.count("|") == len(COLUMNS) + 1
    assert "streaming" in first
    assert dataclasses.asdict(row) == row.as_dict()


def test_the_table_is_whole_at_any_width(monkeypatch):
    rows = all_figures([comparison(), comparison()], WAYS)
    for width, lines in on_screens(monkeypatch, lambda: show_table(rows)).items():
        text = " ".join(" ".join(lines).split())
        assert all(name in text for name in COLUMNS), width
        assert all(cell in text for row in rows for cell in cells(row)), width
        assert EXPLAINED in text
