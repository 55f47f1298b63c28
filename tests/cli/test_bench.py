"""`swarm bench` says what goes together before anything heavy is loaded."""

import json

import pytest
from click.testing import CliRunner

from helpers.comparisons import compared
from swarm.bench import drafts
from swarm.bench.drafts import ClientFigures, DraftsReport, ways_from
from swarm.cli.main import app
from swarm.demo import locate
from swarm.shapes import bench
from swarm.shapes.bench import ShapeResult, ShapeSettings
from swarm.util.prompt_files import Prompt

OF_SHAPES = (["--alpha", "0"], ["--peers", "2"], ["--before"], ["--without-head"])
OF_SWARMS = (["--draft", "demo-draft"], ["--no-draft"], ["--lookup"], ["--no-lookup"])
ADDRESS = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
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


@pytest.mark.parametrize(
    "option",
    [*OF_SWARMS, ["--prompt", "Hello"], ["--kind", "rag"], ["--drafts"], ["--prompts", __file__]],
    ids=lambda each: each[0],
)
def test_options_of_swarms_are_refused_for_a_shape(option):
    assert "is not for --shape" in refused(*SHAPE, *option)


def test_a_draft_is_named_or_there_is_none():
    assert "not both" in refused("demo-target", "--draft", "demo-draft", "--no-draft")


def test_several_drafts_are_for_comparing_sources():
    said = refused("demo-target", "--draft", "demo-draft", "--draft", "demo-target")
    assert "--drafts to compare" in said


def test_prompts_are_given_or_read():
    file = ["--prompts", __file__]
    assert "not both" in refused("demo-target", *file, "--prompt", "Hello")
    assert "--kind is for --prompts" in refused("demo-target", "--kind", "rag")
    outcome = CliRunner().invoke(app, ["bench", "demo-target", *file])
    assert "line 1, is no JSON object" in str(outcome.exception)


def test_sources_are_compared_as_the_options_say(monkeypatch, tmp_path):
    asked = []

    async def measured(settings, drafts, *, quiet):
        asked.append((settings, drafts, quiet))
        ways = ways_from(None, "", copies=True)
        return DraftsReport((ClientFigures(ways, (compared(ways),)),))

    monkeypatch.setattr(drafts, "measure_drafts", measured)
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"category": "qa", "turns": ["Who?"]}\n{"category": "rag", "turns": ["x"]}\n')
    drafts_given = ["--draft", "demo-draft", "--draft", "none", "--draft", "demo-target"]
    prompts_given = ["--prompts", str(file), "--kind", "rag"]
    arguments = ["demo-target", "--drafts", *drafts_given, *prompts_given]
    outcome = CliRunner().invoke(app, ["bench", *arguments, "--bootstrap", ADDRESS, "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert [way["way"] for way in json.loads(outcome.stdout)["ways"]] == ["plain", "copies"]
    [(settings, given, quiet)] = asked
    assert given == (locate("demo-draft"), locate("demo-target"))
    assert settings.prompts == (Prompt("x", "rag", question=True),)
    assert quiet


def test_an_unknown_shape_names_those_there_are():
    assert "gpt-oss-120b" in refused("--shape", "llama-9b")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ShapeSettings]:
    """What would be measured."""
    settings_seen: list[ShapeSettings] = []

    async def measured(settings: ShapeSettings, quiet: bool = False) -> ShapeResult:
        settings_seen.append(settings)
        clients = {name: [compared(bench.WAYS)] for name in (bench.NOW, *settings.others)}
        return ShapeResult(settings, (4.3,), clients)

    monkeypatch.setattr(bench, "measure_shape", measured)
    return settings_seen


def test_a_shape_is_measured_as_the_options_say(asked):
    more = ["--alpha", "0.9", "--peers", "2", "--link-ms", "5", "--without-head", "--json"]
    outcome = CliRunner().invoke(app, ["bench", *SHAPE, *more])
    assert outcome.exit_code == 0, outcome.output
    told = json.loads(outcome.stdout)
    assert [way["way"] for way in told["ways"]] == [way.name for way in bench.WAYS]
    assert told["before"] is None
    assert len(told["without_head"]) == len(bench.WAYS)
    [settings] = asked
    assert (settings.shape.name, settings.odds.alpha) == ("llama-3.1-8b", 0.9)
    assert (settings.peers, settings.link_ms) == (2, 5.0)


def test_a_shape_writes_little_unless_more_is_asked_for(asked):
    more = ["--count", "3", "--max-new-tokens", "128", "--plain-tokens", "32"]
    for arguments in (SHAPE, [*SHAPE, *more]):
        assert CliRunner().invoke(app, ["bench", *arguments]).exit_code == 0
    amounts = [(each.count, each.max_new_tokens, each.plain_tokens) for each in asked]
    assert amounts == [(1, 48, 16), (3, 128, 32)]


def test_a_shape_comes_with_peers_and_links(asked):
    outcome = CliRunner().invoke(app, ["bench", "--shape", "qwen3-235b-a22b"])
    assert outcome.exit_code == 0, outcome.output
    assert "qwen3-235b-a22b, 8 peers of 4.3 ms, links of 20 ms" in outcome.stdout
    [settings] = asked
    assert (settings.peers, settings.link_ms, settings.odds.alpha) == (8, 20.0, 0.8)
