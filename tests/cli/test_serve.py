"""``swarm serve`` without a swarm; `tests/e2e/test_serve.py` tests it with one."""

import sys

import click
import pytest

from swarm.cli.main import app, guard
from swarm.cli.serve import _pairs
from swarm.demo import TARGET
from swarm.gateway.greeting import greeting


def test_drafts_are_for_all_models_or_for_one():
    assert _pairs(["a"], []) == [("a", None)]
    assert _pairs(["a", "b"], ["d"]) == [("a", "d"), ("b", "d")]
    assert _pairs(["a", "b"], ["d", "b=e"]) == [("a", "d"), ("b", "e")]
    assert _pairs(["a", "b"], ["d", "b=none"]) == [("a", "d"), ("b", None)]
    for wrong, words in ((["d", "e"], "two --draft"), (["c=d"], "not served")):
        with pytest.raises(click.UsageError, match=words):
            _pairs(["a", "b"], wrong)


def test_a_draft_names_its_model_by_its_folder_or_as_it_was_given(tmp_path):
    folder = tmp_path / "Small"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    models = [str(folder), "org/large", TARGET]
    expected = [(str(folder), "d"), ("org/large", "e"), (TARGET, None)]
    for given in ("Small", str(folder)):
        assert _pairs(models, [f"{given}=d", "org/large=e"]) == expected
    with pytest.raises(click.UsageError, match=f"name one of Small, org/large, {TARGET}"):
        _pairs(models, ["Other=d"])


def test_a_demo_that_serves_compares_nothing(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["swarm", "demo", "--serve", "--json"])
    assert guard(app, "swarm") == 2
    assert "--serve makes no comparison" in capsys.readouterr().err


def test_the_line_for_curl_can_be_pasted():
    assert greeting("http://127.0.0.1:1", ["m"]).endswith(
        """curl http://127.0.0.1:1/v1/chat/completions -H 'Content-Type: application/json' """
        """-d '{"model": "m", "messages": [{"role": "user", "content": "Hello"}], """
        """"temperature": 0}'"""
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "Missing argument 'MODEL...'"),
        (("m", "--port", "70000"), 2, "not in the range"),
        (("m", "--api-keys", "no-such-file"), 2, "cannot be read"),
        (("m",), 3, "No bootstrap node is configured"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_served_is_one_sentence(arguments, code, words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["swarm", "serve", *arguments])
    assert guard(app, "swarm") == code
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
