"""Hostile or mistaken numbers, for every option of every command."""

import math
from collections.abc import Iterator
from typing import Any, cast

import click
import pytest

from peers.cli import app as swarm_peer
from swarm.cli.decoding import RuleName
from swarm.cli.main import app as swarm
from swarm.errors import ExitCode, SwarmError
from swarm.request import Options, Request

WORDS = (
    "nan",
    "-nan",
    "inf",
    "-inf",
    "1e400",
    "-1e400",
    "1e308",
    "-1",
    "9" * 30,
    "9" * 5000,
    "²",
    "",
    " ",
    "0x10",
)
# of those that hold one
SHAPES = ("{}", "1={}", "{}=1", "{}:9", "0:{}", "{}GB", "127.0.0.1:{}", "adaptive:tau={}")
REQUIRED = {
    "model": "m",
    "models": "m",
    "prompt": "p",
    "file": "f",
    "command": "join",
    "shell": "bash",
}
FAR = 1 << 63
BY_MODEL = {
    "max_new_tokens",
    "logit_bias",
    "top_k",
}  # whole numbers whose bounds are the model's, asked when it is known


def numeric() -> Iterator[tuple[str, click.Command, click.Option]]:
    """Return all options that are no words, files or switches."""
    words = {"text", "file", "directory", "choice", "boolean", "path", "MODEL", "TEXT", "REGEX"}
    for group in (swarm, swarm_peer):
        for name, command in group.commands.items():
            for option in command.params:
                if isinstance(option, click.Option) and option.type.name not in words:
                    yield f"{group.name} {name} {option.opts[-1]}", command, option


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from numbers(each)


CASES = {name: (command, option) for name, command, option in numeric()}


def test_there_are_such_options() -> None:
    assert {
        "swarm serve --grace",
        "swarm generate --temperature",
        "swarm-peer join --layers",
    } <= set(CASES)
    assert len(CASES) > 40


def read(command: click.Command, option: click.Option, word: str) -> Any:
    """Return the value of a word for an option. Raise click.UsageError or SwarmError."""
    required = [
        REQUIRED[str(each.name)] for each in command.params if isinstance(each, click.Argument)
    ]
    value = command.make_context("a command", [*required, option.opts[-1], word]).params[
        str(option.name)
    ]
    if option.name in Options.__annotations__:
        Request.of(
            cast(Options, {option.name: dict(value) if option.name == "logit_bias" else value})
        )
    if isinstance(option.type, RuleName):
        for rule in [value] if isinstance(value, str) else value:
            Request.of({"verify": rule})
    return value


@pytest.mark.parametrize("name", CASES)
def test_no_number_is_taken_that_is_none_or_without_a_bound(name: str) -> None:
    """It is refused with exit code 2, or it is a number of bounded size."""
    command, option = CASES[name]
    codes = set()
    for word in (shape.format(word) for shape in SHAPES for word in WORDS):
        try:
            value = read(command, option, word)
        except (click.UsageError, SwarmError) as error:
            codes.add(error.exit_code)
        else:
            taken = list(numbers(value))
            assert all(math.isfinite(each) for each in taken), (word, value)
            assert option.name in BY_MODEL or all(abs(each) <= FAR for each in taken), (word, value)
    assert codes == {ExitCode.USAGE}


@pytest.mark.parametrize(
    ("option", "word"), [("--grace", "nan"), ("--grace", "inf"), ("--port", "-1")]
)
def test_the_word_is_named(option: str, word: str) -> None:
    with pytest.raises(click.UsageError, match=word):
        swarm.commands["serve"].make_context("serve", ["m", option, word])
