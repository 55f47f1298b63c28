"""Distilling the demonstration's target in seconds: it learns, goes on, and refuses wrong input."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from swarm.cli.main import app
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.problems import problems
from swarm.distill import command
from swarm.distill.command import distill
from swarm.distill.corpus import Corpus
from swarm.distill.report import measure
from swarm.distill.settings import DistillSettings
from swarm.errors import ConfigError
from swarm.model.checkpoint import Checkpoint
from swarm.util.json_lines import UnreadableData
from swarm.util.prompt_files import Prompt

LONG = 1000.0  # minutes: passes end the training, not the clock
TEXTS = 60


def quietly(what: str, share: float, figures: str) -> None:
    assert 0.0 <= share <= 1.0


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of worked problems, as the target has learned to write them."""
    folder = tmp_path_factory.mktemp("texts")
    lines = (
        json.dumps({"prompt": problem.prompt, "text": f" {problem.solution}"})
        for problem in islice(problems(seed=7, held_out=False), TEXTS)
    )
    (folder / "solved.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture
def settings(texts: Path, tmp_path: Path) -> DistillSettings:
    return DistillSettings(
        locate(TARGET), tmp_path / "head", minutes=LONG, passes=3, texts=texts, lag=2
    )


def untrained(settings: DistillSettings) -> float:
    """How many of its first drafts are right before it has learned anything."""
    target = Checkpoint.open(settings.model)
    texts = list(Corpus(settings.out / "texts", target.fingerprint, target.hidden_size))
    frozen = command.load_frozen(settings, target, texts)
    head = command.new_head(target, frozen, texts)
    return measure(head, texts[:3], frozen, 2).chances[0]


@pytest.mark.timeout(600)
def test_a_head_learns_and_the_same_command_goes_on(settings: DistillSettings) -> None:
    first = distill(replace(settings, passes=1), (), quietly)
    again = distill(replace(settings, compare=locate(DRAFT)), (), quietly)
    assert again.texts == first.texts == TEXTS
    assert again.passes > first.passes
    assert again.head.chances[0] > untrained(settings) + 0.25
    assert again.head.chances[0] > first.head.chances[0]
    assert again.draft is not None
    assert 0.6 < again.draft.chances[0] <= 1.0
    report = json.loads((settings.out / "report.json").read_text("utf-8"))
    assert report["head"]["chances"] == list(again.head.chances)
    assert json.loads((settings.out / "config.json").read_text("utf-8"))["target"] == TARGET


@pytest.mark.timeout(600)
def test_the_target_writes_what_is_missing(tmp_path: Path) -> None:
    settings = DistillSettings(locate(TARGET), tmp_path, tokens=400, minutes=LONG, passes=1, lag=1)
    settings = replace(settings, writing=replace(settings.writing, max_new_tokens=6))
    prompts = [Prompt(p.prompt) for p in islice(problems(seed=8, held_out=False), 200)]
    report = distill(settings, prompts, quietly)
    assert report.written >= 400
    assert report.texts < len(prompts)


def test_a_folder_of_another_model_is_left_alone(settings: DistillSettings) -> None:
    settings.out.mkdir()
    (settings.out / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds another model; give a folder of its own"):
        distill(settings, (), quietly)
    assert (settings.out / "config.json").read_text() == "{}"


def test_more_states_than_the_disk_holds_are_refused_at_once(
    settings: DistillSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(command.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ConfigError, match=r"take up to 0.3 GB, .* give at most 1,1"):
        distill(settings, (), quietly)


def test_a_folder_without_texts_is_refused(settings: DistillSettings, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holds no texts, in files \*.txt or \*.jsonl"):
        distill(replace(settings, texts=tmp_path), (), quietly)


def test_texts_behind_those_of_an_interrupted_run_are_read_too(
    settings: DistillSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "AT_ONCE", 2)
    target = Checkpoint.open(settings.model)
    corpus = Corpus(settings.out / "texts", target.fingerprint, target.hidden_size)
    command.fill(corpus, replace(settings, tokens=100), target, (), quietly)
    first = corpus.texts
    assert 0 < first < TEXTS
    command.fill(corpus, settings, target, (), quietly)
    assert corpus.texts == TEXTS
    monkeypatch.delattr(command, "LocalTarget")  # nothing is left to read
    command.fill(corpus, settings, target, (), quietly)
    assert corpus.texts == TEXTS
    prompts = {tuple(text.tokens.tolist()) for text in corpus}
    assert len(prompts) > first


def test_a_single_text_is_too_few(settings: DistillSettings, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "a.txt").write_text("Problem: Mia has 48 shells.")
    with pytest.raises(ConfigError, match="a head needs at least two, and there are 1"):
        distill(replace(settings, texts=folder), (), quietly)


def test_a_line_without_a_text_is_named(settings: DistillSettings, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(UnreadableData, match=r"a.jsonl, line 1, has no text 'text'"):
        distill(replace(settings, texts=tmp_path), (), quietly)


def test_prompts_and_texts_are_not_both_given(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("")
    arguments = ["distill", TARGET, "--out", "x", "--prompts", str(file), "--texts", str(tmp_path)]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert "give --prompts or --texts, not both" in outcome.output
