"""The Docker files: everything that they copy exists, and their programs take their arguments.

No image is built here.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from peers.cli import app as swarm_peer
from swarm.cli.main import app as swarm
from swarm.gateway.browsers import check_host
from swarm.gateway.errors import ForeignPage

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docs" / "docker" / "compose.yml"
PROGRAMS = {"swarm": swarm, "swarm-peer": swarm_peer}
NOBODY = "/dns4/bootstrap/tcp/31337/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
TARGETS = ("peer", "bootstrap", "gateway")
HANG_S = 180

Stage = list[tuple[str, str]]  # instructions and what they say


def _stages() -> dict[str, Stage]:
    stages: dict[str, Stage] = {"": []}
    whole = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace(
        "\\\n", " "
    )
    for line in filter(None, whole.splitlines()):
        instruction, _, said = line.partition(" ")
        if instruction == "FROM":
            base, _, name = said.partition(" AS ")
            stages[name] = [("FROM", base)]
        else:
            stages[list(stages)[-1]].append((instruction, said.strip()))
    return stages


STAGES = _stages()


def history(target: str) -> Stage:
    """Return all lines that make a stage, from the beginning."""
    stage = STAGES[target]
    base = stage[0][1]
    return (history(base) if base in STAGES else []) + stage[1:]


def last(target: str, instruction: str) -> str:
    return [said for name, said in history(target) if name == instruction][-1]


def parse(argv: list[str]) -> click.Context:
    """Let a program read its arguments without running it.

    Raises click.UsageError if they are invalid.
    """
    group = PROGRAMS[argv[0]]
    assert argv[1] in group.commands, f"{argv[0]} has no command {argv[1]}"
    return group.commands[argv[1]].make_context(argv[1], argv[2:])


def services() -> dict[str, Any]:
    """Return the services, with the variables' defaults in place."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copies = [said.split() for stage in STAGES.values() for name, said in stage if name == "COPY"]
    from_stages = {
        words[0].removeprefix("--from=") for words in copies if words[0].startswith("--from=")
    }
    from_here = {word for words in copies if not words[0].startswith("--") for word in words[:-1]}
    assert from_stages == {"libraries", "wheel"}
    assert from_stages <= STAGES.keys()
    assert {"requirements.lock", "pyproject.toml", "swarm", "peers", "bootstrap.toml"} <= from_here
    assert all((ROOT / each).exists() for each in from_here)
    ignored, *kept = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] not in "#"
    ]
    assert ignored == "*"  # a key that lies about is not sent to the builder
    assert {f"!{each}" for each in from_here} <= set(kept)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_in_particular_and_keeps_its_state(target: str) -> None:
    assert last(target, "USER") == "10001:10001"
    assert last(target, "VOLUME") == "/state"
    env = dict(
        pair.split("=", 1)
        for name, said in history(target)
        if name == "ENV"
        for pair in said.split()
    )
    assert all(
        env[name].startswith("/state") for name in ("HOME", "SWARM_HOME", "SWARM_CACHE", "HF_HOME")
    )
    assert last(target, "STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_starts_and_asks_after_its_health_where_it_answers(target: str) -> None:
    more = [] if target == "bootstrap" else ["demo-target"]
    asked = parse([*json.loads(last(target, "ENTRYPOINT")), *more])
    port = asked.params["port"] if target == "gateway" else asked.params["metrics"].port
    (url,) = re.findall(r"http://127\.0\.0\.1:(\d+)/(health|ready)", last(target, "HEALTHCHECK"))
    assert int(url[0]) == port
    assert {str(port), str(asked.params["port"])} <= set(last(target, "EXPOSE").split())


def test_versions_are_those_of_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert re.search(r"^torch==", lock, re.MULTILINE)
    installed = [
        said for name, said in STAGES["libraries"] if name == "RUN" and "pip install" in said
    ]
    assert all("requirements.lock" in said for said in installed)


@pytest.mark.parametrize("name", services())
def test_a_service_of_the_composition_takes_its_arguments(name: str) -> None:
    service = services()[name]
    target = service["build"]["target"]
    assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
    assert target in TARGETS
    asked = parse([*json.loads(last(target, "ENTRYPOINT")), *service.get("command", ())])
    inside = {"SWARM_NETWORK", "SWARM_NETWORK_KEY_FILE"} | (
        set() if target == "bootstrap" else {"SWARM_BOOTSTRAP"}
    )
    assert inside <= service["environment"].keys()
    for published in service.get("ports", ()):
        assert int(published.rpartition(":")[2]) == asked.params["port"]
    leaves_s = float(asked.params.get("grace", 0)) + 10
    assert int(service["stop_grace_period"].removesuffix("s")) > leaves_s


def test_the_key_is_a_secret_and_nothing_else() -> None:
    whole = yaml.safe_load(COMPOSE.read_text())
    assert whole["secrets"] == {"network-key": {"file": "./network.key"}}
    for service in whole["services"].values():
        assert service["secrets"] == ["network-key"]
        assert service["environment"]["SWARM_NETWORK_KEY_FILE"] == "/run/secrets/network-key"


def test_docker_itself_reads_the_composition() -> None:
    docker = shutil.which("docker")
    if (
        not docker
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "--file", str(COMPOSE), "config", "--quiet"]
    env = {**os.environ, "SWARM_BOOTSTRAP": NOBODY}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_S, env=env, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_gateway_may_be_asked_by_the_name_that_others_know_it_by():
    """Prometheus, in the same network, knows no other name."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    command = services["gateway"]["command"]
    (name,) = [after for before, after in itertools.pairwise(command) if before == "--allow-host"]
    assert name in services
    check_host(f"{name}:8000", {name})
    with pytest.raises(ForeignPage):
        check_host(f"{name}:8000", set())
