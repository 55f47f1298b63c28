"""The parts of docs/cli.md that are generated from the commands.

``python tests/helpers/cli_reference.py`` writes them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from peers.cli import app as swarm_peer
from swarm.cli.main import EXIT_CODES
from swarm.cli.main import app as swarm

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
SHARED = ("--bootstrap", "--lan", "--network", "--network-key", "--members", "--identity", "--help")
BLOCK = re.compile(r"(<!-- begin (?P<name>[a-z -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(document: str) -> str:
    """Return the document with its generated parts up to date."""
    parts = {
        "swarm": program(swarm),
        "swarm-peer": program(swarm_peer),
        "network": shared(),
        "exit codes": exit_codes(),
    }
    return BLOCK.sub(lambda block: f"{block[1]}\n{parts[block['name']]}\n\n{block[3]}", document)


def program(group: click.Group) -> str:
    """Return a heading, a sentence and a table for each command."""
    assert group.name is not None
    context = context_of(group)
    rows = list(records(group, context))
    sections = [f"### {group.name}\n\n{said(group)}\n\n{table(rows)}"]
    for name, command in sorted(group.commands.items()):
        if not command.hidden:
            inner = click.Context(command, info_name=name, parent=context)
            usage = " ".join(command.collect_usage_pieces(inner))
            rows = list(records(command, inner))
            sections.append(
                f"### {group.name} {name}\n\n`{group.name} {name} {usage}`\n\n{said(command)}"
            )
            if rows:
                sections.append(table(rows))
    return "\n\n".join(sections)


def shared() -> str:
    """Return the table of the options that most commands have."""
    status = swarm.commands["status"]
    return table(
        list(records(status, click.Context(status, parent=context_of(swarm)), of_all=True))
    )


def context_of(group: click.Group) -> click.Context:
    return click.Context(group, info_name=group.name, **group.context_settings)


def exit_codes() -> str:
    rows = [
        line.split(maxsplit=1) for line in EXIT_CODES.splitlines() if line.strip()[:1].isdigit()
    ]
    return "| code | means |\n|---|---|\n" + "\n".join(
        f"| {code} | {words} |" for code, words in rows
    )


def records(
    command: click.Command, context: click.Context, of_all: bool = False
) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if (
            isinstance(parameter, click.Option)
            and record
            and (parameter.opts[-1] in SHARED) == of_all
        ):
            yield record


def table(rows: list[tuple[str, str]]) -> str:
    lines = ["| option | what it does |", "|---|---|"]
    cells = [(each.replace("|", "\\|") for each in row) for row in rows]
    return "\n".join([*lines, *(f"| `{option}` | {words} |" for option, words in cells)])


def said(command: click.Command) -> str:
    return " ".join((command.help or "").replace("\b", "").split())


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text("utf-8")), "utf-8")
