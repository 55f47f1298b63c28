"""``swarm eval`` as a user runs it, and what its report says."""

import json
import subprocess
import sys

import pytest

from helpers.terminals import on_screens
from swarm.eval.report import ReportRow, report
from swarm.eval.show import BRIEF, COLUMNS, cells, markdown, plot, show_table
from swarm.eval.tasks import Item, Task

PATIENCE_S = 300.0

pytestmark = pytest.mark.usefixtures("warmly")


def swarm_eval(*arguments):
    command = [sys.executable, "-m", "swarm.cli", "eval", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_rules_are_compared_with_their_controls(tmp_path):
    picture = tmp_path / "plot.png"
    ended = swarm_eval(
        "--problems",
        "2",
        "--workers",
        "1",
        "--tau",
        "0",
        "--plot",
        str(picture),
        "--format",
        "json",
    )
    assert ended.returncode == 0, ended.stderr
    rows = {row["name"]: row for row in json.loads(ended.stdout)["rows"]}
    assert list(rows) == [
        *(
            "plain target",
            "draft alone",
            "strict",
            "adaptive",
            "adaptive:tau=0",
            "random, as much as adaptive",
        )
    ]
    plain, strict, adaptive, zero = (
        rows[name] for name in ("plain target", "strict", "adaptive", "adaptive:tau=0")
    )
    assert plain["accuracy"] == strict["accuracy"]
    assert plain["mean_log_p"] == pytest.approx(strict["mean_log_p"])
    assert 1.0 == plain["tokens_per_loop"] < strict["tokens_per_loop"] == zero["tokens_per_loop"]
    assert strict["tokens_per_loop"] < adaptive["tokens_per_loop"]
    assert adaptive["relaxed_per_100"] > zero["relaxed_per_100"] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--task", "poetry"), "the tasks are arithmetic"),
        (("--task", "humaneval", "--data", "x.jsonl"), "--run-generated-code"),
        (("--rule", "lazy"), "the rules are strict"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(arguments, words):
    ended = swarm_eval(*arguments)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


class Stats:
    def __init__(self, tokens, loops, **more):
        self.new_tokens = tokens
        self.loops = loops
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self.relaxed_tokens = 0
        self.deficit_nats = 0.0
        self.finish_reason = "stop"
        self.__dict__.update(more)


class Sample:
    def __init__(self, text, tokens, loops, mean_log_p=None, **stats):
        self.mean_log_p = mean_log_p
        self.generation = type(
            "Generation", (), {"text": text, "stats": Stats(tokens, loops, **stats), "pieces": ()}
        )


TASK = Task("test", tuple(Item("?", lambda text: text == "right") for _ in range(4)), 10)


def test_a_report_adds_up(tmp_path):
    plain = [Sample("right", 10, 10, -1.0) for _ in range(3)] + [
        Sample("wrong", 20, 20, -2.0, finish_reason="length")
    ]
    other = [
        Sample(
            "right", 10, 2, relaxed_tokens=1, deficit_nats=0.5, drafted_tokens=9, accepted_tokens=8
        )
    ] * 2
    other += [Sample("wrong", 10, 2), Sample("right", 30, 6)]
    first, second = report(TASK, {"plain target": plain, "rule": other}, margin=0.01)
    assert (first.accuracy, first.difference, first.p_value, first.tokens_per_loop) == (
        0.75,
        0.0,
        1.0,
        1.0,
    )
    assert (first.mean_log_p, first.no_stop, first.acceptance) == (
        pytest.approx(-70 / 50),
        0.25,
        None,
    )
    assert (second.accuracy, second.difference, second.tokens_per_loop) == (0.75, 0.0, 5.0)
    assert (second.relaxed_per_100, second.deficit_per_100) == (
        pytest.approx(200 / 60),
        pytest.approx(100 / 60),
    )
    assert (second.acceptance, second.length_drift) == (pytest.approx(8 / 9), pytest.approx(0.2))
    assert second.mean_log_p is None
    assert not second.non_inferior  # four items rule nothing out
    assert markdown([first, second]).count("\n") == 3
    plot([first, second], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_the_table_is_whole_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ReportRow(
        name="random, as much as adaptive:tau=0.5",
        items=1000,
        accuracy=0.9876,
        accuracy_interval=(0.95, 0.99),
        difference=-0.0123,
        difference_interval=(-0.0234, 0.0045),
        p_value=0.0123,
        non_inferior=False,
        tokens_per_loop=12.34,
        tokens_per_loop_interval=(11.11, 13.13),
        acceptance=0.4567,
        relaxed_per_100=1.0,
        deficit_per_100=12.34,
        mean_log_p=None,
        length_drift=0.0,
        no_stop=0.0,
        overruled={},
        acceptance_in_window=(),
        acceptance_in_text=(),
    )
    for width, lines in on_screens(monkeypatch, lambda: show_table([row, row], 0.01)).items():
        text = " ".join(" ".join(lines).split())
        figures = [
            cell for column, cell in zip(COLUMNS, cells(row), strict=True) if column in BRIEF
        ]
        assert all(word in text for word in row.name.split()), width
        assert all(shown in text for shown in (*BRIEF, *figures[1:])), width
