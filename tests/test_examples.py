"""The programs in docs/examples run, and pass a user's type checker."""

import runpy
import sys
from pathlib import Path

import pytest
from mypy import api

import swarm
from helpers.swarm_in_thread import ThreadedSwarm
from swarm.demo import DRAFT, TARGET, locate

EXAMPLES = Path(swarm.__file__).parents[1] / "docs" / "examples"
SAID = {  # something that only the right output has
    "generate": "tokens/s over 2 peers",
    "stream": ".",
    "batch": "\n",
    "blocking": "\n",
    "logprobs": "%",
    "hf_generate": "Problem: Mia has 12 coins.",
}
# What a user's project has: our packages are installed, and their sources are not the user's to
# check.
SETTINGS = """
[mypy]
strict = true
follow_imports = skip
ignore_missing_imports = true
[mypy-swarm.*]
follow_imports = silent
"""


@pytest.mark.parametrize("name", SAID)
def test_it_runs(
    name: str,
    threaded: ThreadedSwarm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SWARM_BOOTSTRAP", " ".join(threaded.network.bootstrap))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", locate(TARGET), locate(DRAFT)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr()
    assert SAID[name] in said.out
    assert not said.err


def test_none_is_left_out() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(SAID)


def test_a_users_strict_type_checker_is_content(tmp_path: Path) -> None:
    settings = tmp_path / "mypy.ini"
    settings.write_text(SETTINGS)
    programs = sorted(map(str, EXAMPLES.glob("*.py")))
    told, complaints, _ = api.run(
        ["--config-file", str(settings), "--cache-dir", str(tmp_path), *programs]
    )
    assert (told.splitlines()[-1:], complaints) == (
        [f"Success: no issues found in {len(programs)} source files"],
        "",
    ), told


@pytest.mark.parametrize("package", ["swarm", "peers"])
def test_packages_say_that_they_are_typed(package: str) -> None:
    assert (Path(swarm.__file__).parents[1] / package / "py.typed").is_file()
