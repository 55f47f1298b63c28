"""`swarm bench` says what goes together before anything heavy is loaded."""

import pytest
from click.testing import CliRunner

from swarm.cli.main import app

OF_SHAPES = (["--alpha", "0"], ["--peers", "2"], ["--before"], ["--without-head"])
OF_SWARMS = (["--draft", "demo-draft"], ["--no-draft"], ["--lookup"], ["--no-lookup"])
SHAPE = ["--shape", "llama-3.1-8b"]


def refused(*arguments: str) -> str:
    outcome = CliRunner().invoke(app, ["bench", *arguments])
    assert outcome.exit_code == 2, outcome.output
    return outcome.output


def test_something_has_to_be_measured():
    assert "--shape" in refused()


def test_a_shape_takes_no_model():
    assert "not both" in refused("demo-target", *SHAPE)


@pytest.mark.parametrize("option", OF_SHAPES, ids=lambda option: option[0])
def test_options_of_shapes_are_refused_for_a_swarm(option):
    assert f"{option[0]} is for --shape" in refused("demo-target", *option)


@pytest.mark.parametrize("option", [*OF_SWARMS, ["--prompt", "Hello"]], ids=lambda each: each[0])
def test_options_of_swarms_are_refused_for_a_shape(option):
    assert "is not for --shape" in refused(*SHAPE, *option)


def test_a_draft_is_named_or_there_is_none():
    assert "not both" in refused("demo-target", "--draft", "demo-draft", "--no-draft")


def test_an_unknown_shape_names_those_there_are():
    assert "gpt-oss-120b" in refused("--shape", "llama-9b")
