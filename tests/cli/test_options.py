from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from swarm.cli.main import app
from swarm.cli.options import (
    bootstrap_option,
    compute_options,
    identity_option,
    named_identity,
    named_network,
    network_option,
)
from swarm.config import Network, create_network_key, load_network_key
from swarm.identity import Identity
from swarm.model.compute import ComputeOptions


def test_the_command_line_names_the_network_its_files_and_who_we_are(tmp_path: Path) -> None:
    key, members, who = tmp_path / "network.key", tmp_path / "members.txt", tmp_path / "me.key"
    create_network_key(key)
    member = Identity.generate().peer_id
    members.write_text(member)
    found: list[tuple[Network, Identity | None]] = []

    @click.command()
    @identity_option
    @bootstrap_option
    @network_option
    def command(bootstrap: tuple[str, ...], network: str | None) -> None:
        found.append((named_network(bootstrap, network), named_identity()))

    named = [
        "--network",
        "mine",
        "--network-key",
        str(key),
        "--members",
        str(members),
        "--identity",
        str(who),
    ]
    for arguments in ([], named, named):
        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    (default, nobody), (ours, one), (_, again) = found
    assert default == Network("test")
    assert nobody is None
    assert ours == Network("mine", key=load_network_key(key), members=frozenset({member}))
    assert one is not None
    assert again is not None
    assert one.peer_id == again.peer_id


@pytest.mark.parametrize("name", ["generate", "chat", "serve", "bench", "demo", "eval"])
def test_every_command_that_decodes_says_where_the_client_computes(name: str) -> None:
    options = {option for parameter in app.commands[name].params for option in parameter.opts}
    assert {"--device", "--draft-device", "--draft-dtype", "--draft-vocab"} <= options


def test_where_the_client_computes_is_one_argument() -> None:
    @click.command()
    @compute_options
    def command(compute: ComputeOptions) -> None:
        click.echo(repr(compute))

    def said(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments).output

    assert said() == f"{ComputeOptions()!r}\n"
    asked = ComputeOptions("cuda:1", "cpu", "int8", 32_768)
    given = ("--device", "cuda:1", "--draft-device", "cpu", "--draft-dtype", "int8")
    assert said(*given, "--draft-vocab", "32768") == f"{asked!r}\n"
    assert "'gpu' is no device; give auto, cpu, cuda, cuda:N or mps" in said("--device", "gpu")
    assert "'int4' is not one of" in said("--draft-dtype", "int4")
    assert "give auto, all, or a number from 1024 on" in said("--draft-vocab", "many")
