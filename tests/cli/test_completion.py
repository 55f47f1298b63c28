"""Completion in a real bash, which sources the printed script."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HANG_S = 180
MODULES = {"swarm": "swarm.cli", "swarm-peer": "peers.cli"}
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with both programs under their names, installed or not."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in MODULES.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    return folder


def completed(programs: Path, line: str, where: Path) -> list[str]:
    """Return what bash offers after Tab at the end of ``line``."""
    program = line.split()[0]
    script = f"""
eval "$({program} completion bash)"
COMP_WORDS=({line}{"''" if line.endswith(" ") else ""})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ :; }}  # only where a shell is being typed in
$(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/') {program}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    hub = where / "hub"
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HF_HUB_CACHE": str(hub),
    }
    (hub / "models--someone--some-model").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
        env=env,
        cwd=where,
    )
    assert done.stderr == ""
    return done.stdout.split()


@needs_bash
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("swarm gen", ["generate"]),
        ("swarm generate de", ["demo-target", "demo-draft"]),
        ("swarm chat some", ["someone/some-model"]),
        ("swarm generate demo-target x --verify a", ["adaptive"]),
        ("swarm generate demo-target x --temp", ["--temperature"]),
        ("swarm bench demo-target --format j", ["json"]),
        ("swarm-peer jo", ["join"]),
        ("swarm-peer join demo-t", ["demo-target"]),
        ("swarm-peer join demo-target --dtype bf", ["bfloat16"]),
        ("swarm completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes(programs: Path, tmp_path: Path, line: str, offered: list[str]) -> None:
    assert completed(programs, line, tmp_path) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", MODULES)
def test_every_shell_gets_its_script(programs: Path, program: str, shell: str) -> None:
    done = subprocess.run(
        [programs / program, "completion", shell],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    variable = "_SWARM_COMPLETE" if program == "swarm" else "_SWARM_PEER_COMPLETE"
    assert f"{variable}={shell}_complete" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, timeout=HANG_S, check=True)
