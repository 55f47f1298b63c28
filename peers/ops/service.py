"""``swarm-peer install-service`` and ``uninstall-service``: a peer that runs with the computer."""

import os
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from peers.ops.systemd_unit import MARK, Unit
from swarm.cli.options import entered_through, named_network
from swarm.errors import LocalError

NAMES = {"join": "swarm-peer", "bootstrap": "swarm-bootstrap"}
# Variables that a command finds in its environment and a service would not. None of these is a
# secret: keys are files.
VARIABLES = (
    "SWARM_BOOTSTRAP",
    "SWARM_CACHE",
    "SWARM_CONFIG",
    "SWARM_HOME",
    "SWARM_LOG_FORMAT",
    "SWARM_LOG_LEVEL",
    "SWARM_MEMBERS_FILE",
    "SWARM_NETWORK",
    "SWARM_NETWORK_KEY_FILE",
    "HF_HOME",
    "CUDA_VISIBLE_DEVICES",
)
# to withdraw the record, tell clients and end the daemon; the grace of sessions comes on top
LEAVE_S = 10.0


@dataclass(eq=False)
class ServiceFailed(LocalError):
    """A unit could not be written or removed; ``why`` says what to do."""

    file: Path
    why: str

    def __str__(self) -> str:
        return f"{self.file} {self.why}"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--print", "only_print", is_flag=True, help="Print the unit and write nothing.")
@click.option("--force", is_flag=True, help="Overwrite a unit that another program wrote.")
@click.argument("command", type=click.Choice(list(NAMES)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS]...")
@click.pass_context
def install_service(
    ctx: click.Context, only_print: bool, force: bool, command: str, arguments: tuple[str, ...]
) -> None:
    """Let systemd run `swarm-peer COMMAND ARGUMENTS` for you, as a service of yours; it needs no
    root.

    COMMAND is join or bootstrap, with the arguments that you would type. They are checked, and kept
    as they are.
    """
    unit = _unit(ctx, command, arguments)
    if only_print:
        click.echo(unit.text(), nl=False)
        return
    file = unit_file(NAMES[command])
    write(file, unit.text(), force)
    click.echo(f"{file} is written. Now:")
    click.echo("  systemctl --user daemon-reload")
    click.echo(f"  systemctl --user enable --now {file.stem}")
    click.echo("  loginctl enable-linger              # it also runs while you are not logged in")
    click.echo(f"  journalctl --user -f -u {file.stem}      # what it says")


@click.command()
@click.argument("command", type=click.Choice(list(NAMES)), default="join")
def uninstall_service(command: str) -> None:
    """Take the unit of `swarm-peer COMMAND` (join, if you name none) away again."""
    file = unit_file(NAMES[command])
    remove(file)
    click.echo(f"{file} is gone. Now:")
    click.echo("  systemctl --user daemon-reload")


def unit_file(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """Return the file in which systemd looks for a user's own unit."""
    return Path(
        env.get("XDG_CONFIG_HOME") or Path.home() / ".config", "systemd", "user", f"{name}.service"
    )


def write(file: Path, text: str, force: bool = False) -> None:
    """Write a unit, all at once.

    Raises:
        ServiceFailed: if another program's unit is there and ``force`` is not set.
    """
    try:
        if not force and file.exists() and not _is_ours(file):
            raise ServiceFailed(
                file, "was not written by this command; move it away, or give --force"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise ServiceFailed(file, f"cannot be written ({error.strerror or error})") from None


def remove(file: Path) -> None:
    """Remove a unit.

    Raises:
        ServiceFailed: if there is none, it is not ours, or it is still enabled.
    """
    try:
        if not _is_ours(file):
            raise ServiceFailed(
                file, "was not written by `swarm-peer install-service`; remove it yourself"
            )
        if (file.parent / "default.target.wants" / file.name).is_symlink():
            raise ServiceFailed(
                file, f"is in use; run `systemctl --user disable --now {file.stem}` first"
            )
        file.unlink()
    except FileNotFoundError:
        raise ServiceFailed(file, "is not there, so there is nothing to uninstall") from None
    except OSError as error:
        raise ServiceFailed(file, f"cannot be removed ({error.strerror or error})") from None


def _unit(ctx: click.Context, name: str, arguments: tuple[str, ...]) -> Unit:
    """Return the unit of a command. Raise what the command would raise before it does anything."""
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    command = group.commands[name]
    with command.make_context(name, list(arguments), parent=ctx.parent) as asked:
        if asked.params.get("until_eof"):
            raise click.UsageError(
                "A service has no standard input, so --until-eof would end it at once.", asked
            )
        network = named_network(asked.params["bootstrap"], asked.params["network"])
        if name == "join" and not asked.params["lan"]:
            entered_through(network, lan=False)
        grace_s = asked.params.get("grace", 0.0)
        what = (
            f"swarm peer of {asked.params['model']}" if name == "join" else "swarm bootstrap node"
        )
    program = Path(sysconfig.get_path("scripts"), "swarm-peer")
    if not program.exists():
        raise ServiceFailed(
            program, "is not there; install the project, as by `make install`, and try again"
        )
    environment = {
        variable: os.environ[variable] for variable in VARIABLES if os.environ.get(variable)
    }
    return Unit(what, (str(program), name, *arguments), Path.cwd(), LEAVE_S + grace_s, environment)


def _is_ours(file: Path) -> bool:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().rstrip("\n") == MARK
