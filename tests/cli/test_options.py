from pathlib import Path

import click
from click.testing import CliRunner

from swarm.cli.options import (
    bootstrap_option,
    identity_option,
    named_identity,
    named_network,
    network_option,
)
from swarm.config import Network, create_network_key, load_network_key
from swarm.identity import Identity


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
