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
from swarm.commands.status import status
from swarm.errors import ExitCode, SwarmError
from swarm.gateway.command import serve
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


<<<<<<< HEAD
for command in (generate, chat, serve, status, bench, demo, evaluate, completion):
    app.add_command(command)
=======
@app.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--draft", default="none", metavar="PATH|none", help="Draft model.")
@click.option(
    "--lookup", is_flag=True, help="Also draft by looking up what was said before; good for edits and quotes."
)
@click.option("--window", type=Auto(), default="auto", show_default=True, help="Drafted tokens a frame; 0 is plain.")
@click.option("--depth", type=Auto(), default="auto", show_default=True, help="Frames in flight; 1 waits for each.")
@click.option("--branches", default=3, show_default=True, help="The draft's choices for one place that are sent along.")
@click.option("--verify", default="strict", show_default=True, metavar="RULE", help=f"How drafts are judged: {RULES}.")
@click.option("--key", multiple=True, metavar="REGEX", help="Tokens that match are judged strictly, whatever the rule.")
@click.option("--explain", is_flag=True, help="Also print every token's fate: kept, relaxed, corrected, and why.")
@click.option("--max-new-tokens", default=256, show_default=True, metavar="N")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", default=1.0, show_default=True)
@click.option("--top-k", default=0, show_default=True, help="0 keeps all tokens.")
@click.option("--seed", type=int, help="Of the sampling; the same seed gives the same text.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1 discourages what was said before.")
@click.option("--logit-bias", type=Bias(), multiple=True, help="Nats added to a token's logit; may be given often.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@click.option(
    "--patience", "patience_s", default=30.0, show_default=True, metavar="S", help="Seconds to wait for missing peers."
)
@click.option("--standby", is_flag=True, help="Let other peers stand by for those of the chain; they compute it twice.")
@click.option(
    "--audit",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of texts that other peers compute again, to notice peers that lie; 0 never does.",
)
@click.option("--link-ms", default=0.0, type=click.FloatRange(0, 1000), hidden=True)  # emulated one-way delay
@identity_option
@bootstrap_option
@network_option
@lan_option
@json_option
def generate(
    model: str,
    prompt: str,
    draft: str,
    bootstrap: tuple[str, ...],
    network: str | None,
    lan: bool,
    audit: float,
    link_ms: float,
    as_json: bool,
    explain: bool,
    key: tuple[str, ...],
    logit_bias: tuple[tuple[int, float], ...],
    **options: Any,
) -> None:
    """Continue PROMPT with MODEL (a local folder or a hub id)."""
    from swarm.config import state_dir

    net, identity = entered_through(named_network(bootstrap, network), lan), named_identity()
    from swarm.client import SwarmClient
    from swarm.failover import SwarmIncomplete

    async def run() -> "tuple[Generation, SwarmIncomplete | None]":
        drafter = None if draft == "none" else locate(draft)
        patterns = {f"matches {pattern}": pattern for pattern in key}
        async with SwarmClient(
            locate(model),
            draft=drafter,
            key_patterns=patterns,
            network=net,
            link_ms=link_ms,
            identity=identity,
            cache=state_dir(),
            audit_rate=audit,
        ) as client:
            stream = client.stream(prompt, logit_bias=dict(logit_bias), **options)
            try:
                async for piece in stream:
                    if not as_json:
                        console.show_piece(piece)
            except SwarmIncomplete as error:
                if not as_json:
                    console.show_summary(stream.result)
                return stream.result, error
            if not as_json:
                console.show_summary(stream.result)
            audits = await client.settle(AUDIT_PATIENCE_S)
            return replace(stream.result, stats=replace(stream.result.stats, audits=audits)), None

    generation, failure = _run(run())
    if as_json:
        click.echo(json.dumps(generation.as_dict(explain)))
    else:
        console.show_caught(generation.stats.audits)
        if explain:
            console.show_fates(generation.pieces)
    if failure is not None:
        raise failure


@app.command()
@click.argument("model", required=False)
@click.option("--route", is_flag=True, help="Show the chain of peers that a client would take now, and the runner-up.")
@identity_option
@bootstrap_option
@network_option
@lan_option
@json_option
def status(
    model: str | None, route: bool, bootstrap: tuple[str, ...], network: str | None, lan: bool, as_json: bool
) -> None:
    """Show which peers serve which layers, of MODEL or of every model of the swarm."""
    if route and not model:
        raise click.UsageError("--route shows the chain for one model: name it, as in `swarm status MODEL --route`")
    net, identity = entered_through(named_network(bootstrap, network), lan), named_identity()
    from swarm.status import look, routes

    if route and model:
        choices = _run(routes(net, locate(model), identity))
        if as_json:
            click.echo(json.dumps([choice.as_dict() for choice in choices]))
        else:
            console.show_routes(choices)
        return
    reports = _run(look(net, locate(model) if model else None, identity))
    if as_json:
        click.echo(json.dumps([report.as_dict() for report in reports]))
    else:
        console.show_status(net.name, reports)


@app.command()
@click.option("--peers", default=4, show_default=True, type=click.IntRange(1, 8), help="Peer processes.")
@click.option(
    "--link-ms", default=20.0, show_default=True, type=click.FloatRange(0, 1000), help="Emulated one-way link delay."
)
@click.option("--prompt", "prompts", multiple=True, help="Instead of the three problems; may be given several times.")
@click.option("--picture", metavar="FILE", help="Also draw the run as an SVG file.")
@click.option(
    "--serve", "served", is_flag=True, help="Instead, serve the swarm to browsers and OpenAI clients until Ctrl-C."
)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="For --serve.")
@json_option
def demo(
    peers: int, link_ms: float, prompts: tuple[str, ...], picture: str | None, served: bool, port: int, as_json: bool
) -> None:
    """Start a swarm of peer processes on this machine and compare three ways of decoding on it."""
    if served:
        if prompts or picture or as_json:
            raise click.UsageError("--serve compares nothing: leave out --prompt, --picture and --json")
        from swarm.gateway.demo import serve_demo

        asyncio.run(serve_demo(peers, link_ms, port))
        return
    from swarm.demo.show import run_demo

    _run(run_demo(peers, link_ms, prompts, as_json, picture))


@app.command()
@click.argument("model")
@click.option("--draft", required=True, metavar="PATH", help="Draft model.")
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="Instead of word problems; may be given often."
)
@click.option("--count", default=3, show_default=True, type=click.IntRange(1, 1000), help="Word problems.")
@click.option("--max-new-tokens", default=128, show_default=True, type=click.IntRange(2), metavar="N")
@click.option("--plain-tokens", default=32, show_default=True, type=click.IntRange(2), help="Length of plain texts.")
@click.option("--link-ms", default=0.0, type=click.FloatRange(0, 1000), hidden=True)  # emulated one-way delay
@click.option("--format", "as_", default="table", show_default=True, type=click.Choice(["table", "markdown", "json"]))
@identity_option
@bootstrap_option
@network_option
@lan_option
def bench(
    model: str,
    draft: str,
    prompts: tuple[str, ...],
    count: int,
    max_new_tokens: int,
    plain_tokens: int,
    link_ms: float,
    as_: str,
    bootstrap: tuple[str, ...],
    network: str | None,
    lan: bool,
) -> None:
    """Measure how fast a swarm decodes MODEL in every way, side by side, and how near that is to what is possible."""
    net = entered_through(named_network(bootstrap, network), lan)
    from swarm.bench import command
    from swarm.demo.problems import problems  # any language model can go on with word problems

    asked = command.Asked(
        model=locate(model),
        draft=locate(draft),
        network=net,
        prompts=prompts or tuple(problem.prompt for problem in islice(problems(seed=6, held_out=True), count)),
        max_new_tokens=max_new_tokens,
        plain_tokens=plain_tokens,
        link_ms=link_ms,
        identity=named_identity(),
    )
    command.show(_run(command.measure(asked)), as_)


@app.command("eval")
@click.option("--model", default="demo-target", show_default=True, help="The target: a folder or a hub id.")
@click.option("--draft", default="demo-draft", show_default=True, help="The draft model.")
@click.option("--task", default="arithmetic", show_default=True, help="arithmetic, gsm8k or humaneval.")
@click.option("--data", type=FILE, help="File of questions, for gsm8k and humaneval.")
@click.option("--train", type=FILE, help="File of worked examples to show before each question of gsm8k.")
@click.option("--run-generated-code", is_flag=True, help="Allow humaneval to run what the model writes.")
@click.option("--problems", default=100, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--rule", "rules", multiple=True, default=("adaptive",), show_default=True, help="May be given often.")
@click.option("--tau", multiple=True, type=float, help="Also the adaptive rule at this tau; may be given often.")
@click.option("--ablate", is_flag=True, help="Also without each signal, and without each class of key tokens.")
@click.option("--window", default=8, show_default=True, type=click.IntRange(1, 64), help="Drafted tokens a loop.")
@click.option("--temperature", default=0.0, show_default=True)
@click.option("--margin", default=1.0, show_default=True, help="Points of accuracy that may be lost.")
@click.option("--workers", default=0, type=click.IntRange(0, 256), help="Processes; the default is half the cores.")
@click.option("--plot", type=FILE, help="Draw accuracy over tokens a loop, as PNG or SVG.")
@click.option("--format", "as_", default="table", show_default=True, type=click.Choice(["table", "markdown", "json"]))
@identity_option
@bootstrap_option
@network_option
def evaluate(
    model: str,
    draft: str,
    task: str,
    data: Path | None,
    train: Path | None,
    run_generated_code: bool,
    problems: int,
    rules: tuple[str, ...],
    tau: tuple[float, ...],
    ablate: bool,
    window: int,
    temperature: float,
    margin: float,
    workers: int,
    plot: Path | None,
    as_: str,
    bootstrap: tuple[str, ...],
    network: str | None,
) -> None:
    """Measure what verification rules do to answers and to speed: in process, or over a swarm with --bootstrap."""
    from swarm.eval.tasks import load_task

    asked_task = load_task(task, problems, data=data, train=train, run_generated_code=run_generated_code)
    from swarm.eval import command

    asked = command.Asked(
        model=locate(model),
        draft=locate(draft),
        rules=rules,
        window=window,
        temperature=temperature,
        tau=tau,
        ablate=ablate,
        margin=margin / 100,
        workers=workers,
        network=named_network(bootstrap, network) if bootstrap else None,
        identity=named_identity(),
    )
    command.show(asked_task, command.evaluate(asked_task, asked), asked.margin, as_, plot)


app.add_command(serve)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. SIGTERM ends it as Ctrl-C does: what was started, libp2p's daemon too, is stopped first."""

    async def life() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    return asyncio.run(life())
>>>>>>> g-gate


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
