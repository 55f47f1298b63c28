"""The service's unit: checked before it is written, and nobody else's is touched."""

import functools
import os
import shlex
from pathlib import Path

import pytest

from peers.cli import app
from peers.ops.service import LEAVE_S, unit_file
from swarm.cli.main import guard
from swarm.config import create_network_key

NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
JOIN = ("join", "demo-target", "--layers", "0:4", "--bootstrap", NOBODY, "--grace", "60")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config" / "systemd" / "user" / "swarm-peer.service"


def run(*arguments: str) -> int:
    return guard(functools.partial(app, list(arguments)), "swarm-peer")


def lines(text: str) -> dict[str, str]:
    return dict(
        line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")
    )


def test_a_unit_holds_exactly_what_was_given(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("install-service", *JOIN) == 0
    said = capsys.readouterr().out
    assert all(
        next_one in said
        for next_one in ("daemon-reload", "enable --now swarm-peer", "enable-linger")
    )
    unit = lines(file.read_text())
    program, *arguments = shlex.split(unit["ExecStart"])
    assert tuple(arguments) == JOIN
    assert os.access(program, os.X_OK)
    assert unit["WorkingDirectory"] == str(tmp_path)
    assert int(unit["TimeoutStopSec"]) > LEAVE_S + 60


def test_it_can_be_looked_at_first(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("install-service", "--print", "bootstrap", "--port", "31338") == 0
    assert shlex.split(lines(capsys.readouterr().out)["ExecStart"])[1:] == [
        "bootstrap",
        "--port",
        "31338",
    ]
    assert not file.parent.exists()


def test_a_private_network_is_named_by_its_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "office.key"
    create_network_key(key)
    monkeypatch.setenv("SWARM_NETWORK_KEY_FILE", str(key))
    monkeypatch.setenv("HF_TOKEN", "a secret")
    assert run("install-service", *JOIN) == 0
    written = file.read_text()
    assert f"Environment=SWARM_NETWORK_KEY_FILE={key}\n" in written
    assert key.read_text().strip() not in written
    assert "a secret" not in written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("join",), "Missing argument 'MODEL'"),
        (("join", "demo-target", "--layers", "4"), "no span of layers"),
        (("join", "demo-target", "--fast"), "No such option"),
        (("join", "demo-target", "--until-eof", "--bootstrap", NOBODY), "no standard input"),
        (("join", "demo-target"), "No bootstrap node is configured"),
        (("join", "demo-target", "--bootstrap", "here"), "is not an address"),
        (("join", "demo-target", "--bootstrap", NOBODY, "--network-key", "none.key"), "none.key"),
        (("doctor",), "is not one of"),
        (("join", "demo\nExecStartPre=x", "--bootstrap", NOBODY), "control characters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_would_not_run_is_not_installed(
    arguments: tuple[str, ...], words: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("install-service", *arguments) != 0
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not file.exists()


def test_another_unit_is_overwritten_by_force_only(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("[Service]\n")
    assert run("install-service", *JOIN)
    assert "--force" in capsys.readouterr().err
    assert file.read_text() == "[Service]\n"
    assert run("install-service", "--force", *JOIN) == 0
    assert run("install-service", *JOIN[:-2]) == 0  # ours may be written anew
    assert "--grace" not in file.read_text()
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_uninstalling_takes_away_what_is_ours_and_not_in_use(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("uninstall-service")
    assert "nothing to uninstall" in capsys.readouterr().err
    assert run("install-service", *JOIN) == 0
    wanted = file.parent / "default.target.wants" / file.name
    wanted.parent.mkdir()
    wanted.symlink_to(file)
    assert run("uninstall-service")
    assert "systemctl --user disable --now swarm-peer" in capsys.readouterr().err
    wanted.unlink()
    assert run("uninstall-service") == 0
    assert not file.exists()
    file.write_text("[Service]\n")
    assert run("uninstall-service")
    assert file.exists()


def test_units_lie_where_systemd_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unit_file("a", {}) == Path.home() / ".config/systemd/user/a.service"
    assert unit_file("a", {"XDG_CONFIG_HOME": "/x"}) == Path("/x/systemd/user/a.service")
