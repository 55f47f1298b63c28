"""Figures of a way are medians over the prompts, and ratios are taken prompt by prompt."""

import dataclasses
import json

import pytest

from helpers.comparisons import compared, generation
from helpers.terminals import on_screens
from swarm.bench.compare import Comparison
from swarm.bench.figures import all_figures, best, figures, figures_from
from swarm.bench.show import COLUMNS, EXPLAINED, cells, markdown, show_table
from swarm.bench.ways import ADAPTIVE, BRANCHES, PLAIN, STREAMING, window_of

WINDOWS = [window_of(8), window_of(16)]
WAYS = [PLAIN, *WINDOWS, STREAMING, BRANCHES, ADAPTIVE]


def comparison(**speeds):
    return compared(WAYS, **speeds)


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


def test_a_way_says_what_its_texts_waited_for():
    row = figures([comparison(), comparison(**{"streaming": 10.0})], STREAMING)
    assert row.share is not None
    assert (row.share.judging, row.share.stages, row.share.links) == (
        pytest.approx(0.1),
        pytest.approx(0.9 * 0.05),
        pytest.approx(0.9 * 0.95),
    )
    assert sum(dataclasses.astuple(row.share)) == pytest.approx(1.0)
    assert row.judge_ms == pytest.approx((4.0 + 40.0) / 2)


def test_figures_come_back_from_plain_data():
    row = figures([comparison()], STREAMING)
    assert figures_from(json.loads(json.dumps(row.as_dict()))) == row


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
