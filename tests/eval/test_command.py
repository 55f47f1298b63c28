"""``swarm eval`` as a user runs it, and what its report says."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from helpers.terminals import on_screens
from swarm.eval.report import ReportRow, RightAnswers, report
from swarm.eval.sample import EvalSample
from swarm.eval.show import cells, columns, markdown, plot, show_table
from swarm.eval.tasks import Item, Task
from swarm.outputs import Piece

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
        "2",  # a process for each eight problems
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


def test_a_study_goes_on_where_it_was(tmp_path):
    file = str(tmp_path / "study.jsonl")
    common = ("--new-tokens", "30", "--workers", "1", "--study", file, "--format", "json")
    first = swarm_eval("--problems", "1", *common)
    assert first.returncode == 0, first.stderr
    kept = (tmp_path / "study.jsonl").read_text()
    second = swarm_eval("--problems", "3", *common)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "study.jsonl").read_text().startswith(kept)
    assert len((tmp_path / "study.jsonl").read_text().splitlines()) == 1 + 3
    rules, by_mark = json.loads(second.stdout)["tables"]
    assert [row["name"] for row in rules["rows"]] == ["all misses", "adaptive"]
    assert by_mark["rows"][0]["name"] == "not key"
    other = swarm_eval("--problems", "3", *common, "--probes", "0.25")
    assert (other.returncode, "other settings" in other.stderr) == (2, True)


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


def sample(text, tokens, loops, mean_log_p=None, *, relaxed=0, drafted=0, reason="stop"):
    """Return a text whose first tokens cost half a nat each."""
    pieces = [Piece(at, "", "relaxed", at, 99, deficit_nats=0.5) for at in range(relaxed)]
    pieces += [Piece(at, "", "drafted", at) for at in range(relaxed, drafted)]
    pieces += [Piece(at, "", "target") for at in range(len(pieces), tokens)]
    return EvalSample(text, tuple(pieces), reason, loops, drafted + 1 if drafted else 0, mean_log_p)


def task(check):
    return Task("test", tuple(Item("?", check) for _ in range(4)), 10)


def right(text):
    return text == "right"


PLAIN_SAMPLES = [sample("right", 10, 10, -1.0) for _ in range(3)] + [
    sample("wrong", 20, 20, -2.0, reason="length")
]
OTHERS = [
    *[sample("right", 10, 2, relaxed=1, drafted=8)] * 2,
    sample("wrong", 10, 2),
    sample("right", 30, 6),
]


def test_a_report_adds_up(tmp_path):
    samples = {"plain target": PLAIN_SAMPLES, "rule": OTHERS}
    first, second = report(task(right), samples, margin=0.01)
    assert (first.answers.accuracy, first.answers.difference, first.answers.p_value) == (
        0.75,
        0.0,
        1.0,
    )
    assert (first.tokens_per_loop, first.agreement) == (1.0, 1.0)
    assert (first.mean_log_p, first.no_stop, first.acceptance) == (
        pytest.approx(-70 / 50),
        0.25,
        None,
    )
    assert first.log_p_difference_interval == (0.0, 0.0)
    assert (second.answers.accuracy, second.answers.difference, second.tokens_per_loop) == (
        0.75,
        0.0,
        5.0,
    )
    assert (second.relaxed_per_100, second.deficit_per_100) == (
        pytest.approx(200 / 60),
        pytest.approx(100 / 60),
    )
    assert (second.acceptance, second.length_drift) == (pytest.approx(8 / 9), pytest.approx(0.2))
    assert second.agreement == pytest.approx((1 + 1 + 1 + 2 * 20 / 50) / 4)
    assert second.mean_log_p is None
    assert second.log_p_difference_interval is None
    assert not second.answers.non_inferior  # four items rule nothing out
    assert markdown([first, second]).count("\n") == 3
    assert first.as_dict()["accuracy"] == 0.75
    plot([first, second], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_answers_that_no_program_checks_are_not_reported(tmp_path, capsys):
    rows = report(task(None), {"plain target": PLAIN_SAMPLES, "rule": OTHERS}, margin=0.01)
    assert [row.answers for row in rows] == [None, None]
    assert "accuracy" not in rows[0].as_dict()
    assert "right" not in markdown(rows)
    assert "agrees" in markdown(rows)
    show_table(rows, 0.01)
    assert "to plain" not in capsys.readouterr().out
    plot(rows, tmp_path / "plot.svg")
    assert "agreement" in (tmp_path / "plot.svg").read_text()


def test_the_table_is_whole_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ReportRow(
        name="random, as much as adaptive:tau=0.5",
        items=1000,
        answers=RightAnswers(
            accuracy=0.9876,
            accuracy_interval=(0.95, 0.99),
            difference=-0.0123,
            difference_interval=(-0.0234, 0.0045),
            p_value=0.0123,
            non_inferior=False,
        ),
        tokens_per_loop=12.34,
        tokens_per_loop_interval=(11.11, 13.13),
        acceptance=0.4567,
        relaxed_per_100=1.0,
        deficit_per_100=12.34,
        mean_log_p=-0.123,
        log_p_difference_interval=(-0.01, 0.02),
        length_drift=0.0,
        agreement=0.789,
        agreement_interval=(0.777, 0.799),
        no_stop=0.0,
        overruled={},
        acceptance_in_window=(),
        acceptance_in_text=(),
    )
    unchecked = replace(row, answers=None)
    for shown_row in (row, unchecked):
        chosen = columns([shown_row], brief=True)
        figures = [cells(shown_row)[column] for column in chosen]
        screens = on_screens(monkeypatch, lambda: show_table([shown_row, shown_row], 0.01))  # noqa: B023
        for width, lines in screens.items():
            text = " ".join(" ".join(lines).split())
            assert all(word in text for word in row.name.split()), width
            assert all(shown in text for shown in (*chosen, *figures[1:])), width
