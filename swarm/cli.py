"""``swarm``: what a user types. Commands import heavy libraries when they run, so that ``--help`` is quick."""

import asyncio
import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from swarm import __version__, console
from swarm.commands.bench import bench
from swarm.commands.chat import chat
from swarm.commands.completion import completion
from swarm.commands.demo import demo
from swarm.commands.evaluate import evaluate
from swarm.commands.generate import generate
from swarm.commands.serve import serve
from swarm.commands.status import status
from swarm.errors import ExitCode, SwarmError
from swarm.options import logging_options

EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed
  2    what was asked for, or configured, cannot be
  3    no way into the network
  4    the swarm does not serve the whole model now
  5    a model, key or other file here, or this computer, is not what is needed
  130  stopped by Ctrl-C or SIGTERM
"""

log = logging.getLogger(__name__)


@click.group("swarm", epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="swarm")
@logging_options
def app() -> None:
    """Run large language models on a swarm of volunteers' computers."""
    console.settle_colours()


for command in (generate, chat, serve, status, bench, demo, evaluate, completion):
    app.add_command(command)


def main() -> None:
    """The console script."""
    sys.exit(guard(app, "swarm"))


def guard(command: Callable[..., Any], program: str) -> ExitCode | int:
    """Run a click command: errors become one sentence and an exit code. Shared with ``swarm-peer``."""
    _print_what_the_terminal_can()
    try:
        command(standalone_mode=False, prog_name=program)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SwarmError as error:
        return _say(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        click.echo("stopped", err=True)
        return ExitCode.STOPPED
    except OSError as error:
        log.debug("where it failed", exc_info=True)
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}; see that it exists, is yours and has room", ExitCode.LOCAL)
    except Exception as error:
        log.debug("where it failed", exc_info=True)
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        return _say(f"{fault}; this is a fault of ours: please report what `{program} -v` says", ExitCode.FAILED)
    return ExitCode.DONE


def _say(sentence: str, code: ExitCode) -> ExitCode:
    one_line = " ".join(console.CONTROLS.sub("", sentence).splitlines())  # of which strangers may have said a part
    click.echo(f"error: {one_line}", err=True)
    return code


def _print_what_the_terminal_can() -> None:
    """A character that the terminal's encoding lacks becomes a question mark, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
