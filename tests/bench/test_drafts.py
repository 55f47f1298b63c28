"""Sources of drafts, one client after the other, on one chain."""

import dataclasses
import json

import pytest

from helpers.comparisons import compared
from helpers.swarm_in_thread import ThreadedSwarm
from helpers.terminals import on_screens
from swarm.bench.command import BenchSettings
from swarm.bench.drafts import (
    COPIES,
    ClientFigures,
    DraftsReport,
    measure_drafts,
    names_of,
    ways_from,
)
from swarm.bench.show_drafts import LAGS, lag_cells, show_drafts, tables
from swarm.bench.ways import PLAIN
from swarm.decoding.acceptance import SourceAcceptance
from swarm.demo import DRAFT, TARGET, locate
from swarm.util.prompt_files import Prompt

MODEL = SourceAcceptance("model", (100, 50, 9), (90, 40, 9))
COPY = SourceAcceptance("copy", (10,), (7,))


def test_each_draft_is_a_source_alone_and_with_copies():
    assert ways_from(None, "", copies=True) == (PLAIN, COPIES)
    assert ways_from(None, "", copies=False) == (PLAIN,)
    assert [way.name for way in ways_from("a/b", "b", copies=True)] == [
        "plain",
        "b",
        "b and copies",
    ]
    assert [way.options for way in ways_from("a/b", "b", copies=False)] == [
        {"window": 0},
        {"lookup": False},
    ]


@pytest.mark.parametrize(
    ("drafts", "names"),
    [
        (["a/one", "/home/two"], ["one", "two"]),
        (["a/one", "b/one", "two"], ["a/one", "b/one", "two"]),
        ([], []),
    ],
)
def test_drafts_have_short_names_that_differ(drafts, names):
    assert names_of(drafts) == names


@pytest.fixture
def report() -> DraftsReport:
    """Two clients: each has a prompt of two kinds, and the second one a draft with copies."""
    clients = []
    for ways in (ways_from(None, "", copies=True), ways_from("head", "head", copies=True)):
        comparisons = [
            dataclasses.replace(with_acceptance(compared(ways)), kind=kind)
            for kind in ("qa", "rag")
        ]
        clients.append(ClientFigures(ways, tuple(comparisons)))
    return DraftsReport(tuple(clients))


@pytest.mark.parametrize("as_", ["table", "markdown"])
def test_why_a_source_was_left_is_said(report, as_, capsys):
    last = report.clients[-1]
    [one, *others] = last.comparisons
    head = one.ways["head"]
    left = dataclasses.replace(head, stats=dataclasses.replace(head.stats, draft_error="it is off"))
    one = dataclasses.replace(one, ways={**one.ways, "head": left})
    client = dataclasses.replace(last, comparisons=(one, *others))
    show_drafts(dataclasses.replace(report, clients=(*report.clients[:-1], client)), as_)
    assert "head: drafting ended (it is off)." in capsys.readouterr().out
    show_drafts(report, as_)
    assert "drafting ended" not in capsys.readouterr().out


def with_acceptance(comparison):
    """Give each way but the plain one the counts of its sources."""
    counts = {"copies": (COPY,), "head": (MODEL,), "head and copies": (COPY, MODEL)}
    ways = {
        name: dataclasses.replace(
            each,
            stats=dataclasses.replace(each.stats, acceptance_by_source=counts.get(name, ())),
        )
        for name, each in comparison.ways.items()
    }
    return dataclasses.replace(comparison, ways=ways)


def test_plain_decoding_stands_once_and_counts_are_summed_up(report):
    rows = {row.way: row for row in report.rows()}
    assert [*rows] == ["plain", "copies", "head", "head and copies"]
    assert rows["head"].acceptance == (SourceAcceptance("model", (200, 100, 18), (180, 80, 18)),)
    [row] = [row for row in report.rows("rag") if row.way == "head"]
    assert row.acceptance == (MODEL,)


def test_as_json_there_is_one_object(report):
    told = json.loads(json.dumps(report.as_dict()))
    assert [row["way"] for row in told["ways"]] == [row.way for row in report.rows()]
    assert [*told["kinds"]] == ["qa", "rag"]
    assert told["ways"][2]["acceptance"] == [
        {"source": "model", "judged": [200, 100, 18], "accepted": [180, 80, 18]}
    ]
    assert [len(client["prompts"]) for client in told["clients"]] == [2, 2]
    assert told["clients"][1]["prompts"][1]["kind"] == "rag"


def test_rates_of_few_drafts_are_not_shown():
    assert lag_cells(MODEL) == ["90", "80", *[""] * (LAGS - 2)]


def test_the_tables_are_whole_at_any_width(report, monkeypatch):
    for width, lines in on_screens(monkeypatch, lambda: show_drafts(report, "table")).items():
        text = " ".join(" ".join(lines).split())
        for _, columns, rows, explained in tables(report):
            assert all(cell in text for cells in (columns, *rows) for cell in cells), width
            assert explained in text
        assert "head and copies: model" in text


def test_as_markdown_each_table_has_a_row_for_each_source(report, capsys):
    show_drafts(report, "markdown")
    said = capsys.readouterr().out
    assert "| head | 10.00x |" in said
    assert "| head and copies: copy | 70 |" in said
    assert "| copies | 10.00x | 10.00x |" in said


async def test_all_sources_decode_the_same_text_on_the_same_peers(threaded: ThreadedSwarm):
    settings = BenchSettings(
        model=locate(TARGET),
        draft=None,
        network=threaded.network,
        prompts=(Prompt("Problem: Mia has 12 coins."), Prompt("Problem: Amir has", "other")),
        max_new_tokens=24,
        plain_tokens=6,
    )
    report = await measure_drafts(settings, [locate(DRAFT)], quiet=True)
    rows = {row.way: row for row in report.rows()}
    assert [*rows] == ["plain", "copies", "demo-draft", "demo-draft and copies"]
    assert all(row.identical for row in rows.values())
    assert report.kinds == ("prompt", "other")
    assert rows["plain"].acceptance == ()
    [of_draft] = rows["demo-draft"].acceptance
    assert of_draft.source == "model"
    assert sum(of_draft.judged) >= sum(of_draft.accepted) > 0
    routes = {
        frozenset(stop.peer_id for stop in way.route)
        for client in report.clients
        for comparison in client.comparisons
        for way in comparison.ways.values()
    }
    assert len(routes) == 1
