"""The tables of a shape are whole, and its JSON is what `--json` promises."""

import json

import pytest

from helpers.comparisons import compared
from helpers.shapes import TINY
from helpers.terminals import on_screens
from swarm.shapes.bench import AS_BEFORE, NOW, WAYS, ShapeResult, ShapeSettings
from swarm.shapes.script import Odds
from swarm.shapes.show import COLUMNS, EXPLAINED, all_cells, markdown, show, title


def result(before: bool = True) -> ShapeResult:
    others = (AS_BEFORE,) if before else ()
    settings = ShapeSettings(TINY, Odds(0.8), 2, 20.0, 1, 64, 16, others=others)
    clients = {NOW: [compared(WAYS)]}
    if before:
        clients[AS_BEFORE] = [compared(WAYS, **{"streaming": 12.0})]
    return ShapeResult(settings, (1.1, 1.1), clients)


def test_the_table_is_whole_at_any_width(monkeypatch):
    measured = result()
    for width, lines in on_screens(monkeypatch, lambda: show(measured, "table")).items():
        text = " ".join(" ".join(lines).split())
        assert all(name in text for name in COLUMNS), width
        assert all(cell in text for row in all_cells(measured) for cell in row), width
        assert " ".join(EXPLAINED.split()) in text
    drafted_by = "a draft model of 0M weights"
    assert title(measured) == f"tiny, 2 peers of 1.1 ms, links of 20 ms, {drafted_by}"


def test_a_row_is_as_wide_as_its_head():
    head, line, *rows = markdown(all_cells(result())).splitlines()
    assert {row.count("|") for row in (head, line, *rows)} == {len(COLUMNS) + 1}
    assert sum("before" in row for row in rows) == len(WAYS)


def test_json_has_the_ways_and_what_they_waited_for(capsys):
    show(result(), "json")
    told = json.loads(capsys.readouterr().out)
    assert [way["way"] for way in told["ways"]] == [way.name for way in WAYS]
    for way in (*told["ways"], *told["before"]):
        assert {"way", "tokens_per_second", "speedup", "bound_share", "share"} <= set(way)
        assert set(way["share"]) == {"links", "stages", "judging", "drafting", "waiting"}
        assert sum(way["share"].values()) == pytest.approx(1.0)
    assert told["shape"]["name"] == "tiny"
    assert told["shape"]["alpha"] == 0.8


def test_a_client_that_was_not_measured_is_null(capsys):
    show(result(before=False), "json")
    told = json.loads(capsys.readouterr().out)
    assert told["before"] is told["without_head"] is None
