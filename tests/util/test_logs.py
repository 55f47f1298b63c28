"""Logs: lines for people or for machines, and never more of them than a disk can take."""

import json
import logging
import os
import re
import subprocess
import sys

import pytest

from swarm.util.logs import MAX_A_MINUTE, MAX_TEXT, PACKAGES, JsonLines, Sparing, set_up

HANG_S = 180


def record(
    message: str = "hello %s", *arguments: object, level: int = logging.WARNING, **extra: object
):
    made = logging.LogRecord("swarm.here", level, "here.py", 7, message, arguments, None)
    vars(made).update(extra)
    return made


def test_a_json_line_has_time_level_logger_message_and_fields() -> None:
    line = JsonLines().format(record("hello %s", "you", peer="12D3", seconds=1.5, where=object))
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("time"))
    assert said == {
        "level": "warning",
        "logger": "swarm.here",
        "message": "hello you",
        "peer": "12D3",
        "seconds": 1.5,
        "where": str(object),
    }


def test_what_strangers_say_stays_on_one_bounded_line() -> None:
    line = JsonLines().format(record("%s", "a\nb\x1b[31m\u202e" + "c" * 2 * MAX_TEXT))
    assert line.isascii()
    assert line.isprintable()
    assert len(json.loads(line)["message"]) == MAX_TEXT


def test_a_field_cannot_pose_as_the_message() -> None:
    assert (
        json.loads(JsonLines().format(record("true", level=logging.ERROR, time="forged")))["time"]
        != "forged"
    )


def test_a_traceback_is_part_of_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        made = record()
        made.exc_info, made.args = sys.exc_info(), ("you",)
    assert json.loads(JsonLines().format(made))["exception"].endswith("ValueError: broken")


def test_one_place_gets_so_many_lines_a_minute_and_says_what_was_left_out() -> None:
    now = 0.0
    sparing = Sparing(lambda: now)
    assert [sparing.filter(record("flood")) for _ in range(MAX_A_MINUTE + 5)].count(
        True
    ) == MAX_A_MINUTE
    elsewhere = record("another place")
    elsewhere.lineno += 1
    assert sparing.filter(elsewhere)
    assert all(
        sparing.filter(record("flood", level=logging.DEBUG)) for _ in range(2 * MAX_A_MINUTE)
    )
    now = 61.0
    late, later = record("flood of %s", "them"), record("flood")
    assert sparing.filter(late)
    assert late.getMessage() == "flood of them (5 more like this were left out before)"
    assert sparing.filter(later)
    assert later.getMessage() == "flood"


@pytest.mark.parametrize(
    ("level", "number"), [("warning", logging.WARNING), ("debug", logging.DEBUG)]
)
def test_a_level_is_of_our_own_packages(
    level: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES:
        monkeypatch.setattr(logging.getLogger(package), "level", logging.NOTSET)
    set_up(level)
    assert [logging.getLogger(package).level for package in PACKAGES] == [number, number]


SCRIPT = """
import logging, sys
from swarm.cli.main import app
@app.command()
def shout():
    logging.getLogger("swarm.test").info("about %s", "this")
    logging.getLogger("somebody.else").info("not of interest")
    print("said")
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "env", "logged"),
    [
        ((), {}, ""),
        (("--log-level", "info"), {}, "INFO swarm.test: about this\n"),
        (("-v",), {}, "INFO swarm.test: about this\n"),
        ((), {"SWARM_LOG_LEVEL": "info"}, "INFO swarm.test: about this\n"),
        (("--log-level", "error"), {"SWARM_LOG_LEVEL": "info"}, ""),
        (
            (),
            {"SWARM_LOG_LEVEL": "debug", "SWARM_LOG_FORMAT": "json"},
            {"level": "info", "message": "about this"},
        ),
    ],
)
def test_a_program_logs_what_options_or_environment_say(
    arguments: tuple[str, ...], env: dict[str, str], logged: str | dict[str, str]
) -> None:
    command = [sys.executable, "-c", SCRIPT, *arguments, "shout"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env={**os.environ, **env},
        check=True,
    )
    assert done.stdout == "said\n"
    if isinstance(logged, str):
        assert done.stderr == logged
    else:
        assert logged.items() <= json.loads(done.stderr).items()


def test_a_wrong_level_in_the_environment_is_said() -> None:
    command = [sys.executable, "-m", "peers.cli", "doctor"]
    env = {**os.environ, "SWARM_LOG_LEVEL": "loud"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_S, env=env, check=False
    )
    assert done.returncode == 2
    assert "'loud' is not one of 'debug'" in done.stderr.splitlines()[-1]
