from dataclasses import dataclass

import click
from click.testing import CliRunner

from swarm.cli.grouping import option_group
from swarm.cli.options import port_option


def test_options_that_belong_together_come_as_one_argument_in_their_order() -> None:
    @dataclass
    class Place:
        host: str
        port: int

    seen: list[tuple[str, Place, bool]] = []

    @click.command()
    @click.argument("model")
    @option_group(Place, "place", click.option("--host", default="here"), port_option(80))
    @click.option("--quiet", is_flag=True)
    def command(model: str, place: Place, quiet: bool) -> None:
        """Do it."""
        seen.append((model, place, quiet))

    told = CliRunner().invoke(command, ["m", "--port", "81"], catch_exceptions=False)
    assert (told.exit_code, seen) == (0, [("m", Place("here", 81), False)])
    assert [each.name for each in command.params] == ["model", "host", "port", "quiet"]
    assert command.help == "Do it."
    assert CliRunner().invoke(command, ["m", "--port", "65536"]).exit_code == 2
