"""The command ``swarm``, and how it ends.

Subcommands import heavy libraries when they run, so that ``--help`` is quick.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from swarm import __version__
from swarm.cli.bench import bench
from swarm.cli.chat import chat
from swarm.cli.completion import completion
from swarm.cli.demo import demo
from swarm.cli.distill import distill
from swarm.cli.evaluate import evaluate
from swarm.cli.generate import generate
from swarm.cli.options import logging_options
from swarm.cli.serve import serve
from swarm.cli.status import status
from swarm.errors import ExitCode, SwarmError
from swarm.terminal import console, signals, stdio

EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed
  2    the request or the configuration is invalid
  3    no way into the network
  4    the swarm does not serve the whole model now
  5    a model, key or other file here, or this computer, is unsuitable
  129  stopped because its terminal was closed (SIGHUP)
  130  stopped by Ctrl-C
  143  stopped by SIGTERM
"""

log = logging.getLogger(__name__)


@click.group("swarm", epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="swarm")
@logging_options
def app() -> None:
    """Run large language models on a swarm of volunteers' computers."""
    console.settle_colours()


for command in (generate, chat, serve, status, bench, demo, evaluate, distill, completion):
    app.add_command(command)


def main() -> None:
    """Run the command line; `swarm.cli.start` is the console script."""
    sys.exit(guard(app, "swarm"))


def guard(command: Callable[..., Any], program: str) -> int:
    """Run a click command, and return its exit code; an error is printed as one sentence.

    Shared with ``swarm-peer``.
    """
    stdio.settle()
    with signals.stoppable():
        try:
            command(standalone_mode=False, prog_name=program)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except SwarmError as error:
            return _say(str(error), error.exit_code)
        except (click.Abort, KeyboardInterrupt, asyncio.CancelledError, OSError) as error:
            stdio.drop_unwritten()
            number = signals.stopped_by(error)
            if number is None and isinstance(error, OSError):
                return _cannot(error)
            with contextlib.suppress(OSError):  # of a terminal that was closed
                click.echo("stopped", err=True)
            return signals.EXIT_BASE + (number or signal.SIGINT)
        except Exception as error:
            log.debug("where it failed", exc_info=True)
            fault = " ".join(f"{type(error).__name__}: {error}".split())
            what = f"this is a bug: please report the output of `{program} -v ...`"
            return _say(f"{fault}; {what}", ExitCode.FAILED)
    return ExitCode.DONE


def _cannot(error: OSError) -> ExitCode:
    """Print that a file cannot be used, unless it is a pipe whose reader has left."""
    log.debug("where it failed", exc_info=True)
    if isinstance(error, BrokenPipeError):
        return ExitCode.FAILED
    where = f"{error.filename}: " if error.filename else ""
    return _say(
        f"{where}{error.strerror or error}; see that it exists, is yours and has room",
        ExitCode.LOCAL,
    )


def _say(sentence: str, code: ExitCode) -> ExitCode:
    # the sentence may quote other people's words
    one_line = " ".join(console.CONTROLS.sub("", sentence).splitlines())
    click.echo(f"error: {one_line}", err=True)
    return code
