"""What commands print: tokens by their origin, summaries, tables.

Without a terminal, the output is plain text.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.text import Text

    from swarm.chain.choice import Choice
    from swarm.client.status import ModelStatus, PeerStatus
    from swarm.decoding.rules.rule import Origin
    from swarm.outputs import Audits, Generation, Piece, Stats

STYLES: "dict[Origin, str]" = {
    "drafted": "green",
    "relaxed": "magenta",
    "branch": "cyan",
    "corrected": "yellow",
    "target": "bold",
}
LEGEND: "dict[Origin, str]" = {
    "drafted": "drafted and kept",
    "relaxed": "kept by leniency",
    "branch": "the draft's other choice",
    "corrected": "draft corrected",
    "target": "the target's own",
}
OTHER_COLUMNS = 74  # characters of a status table beside the bars of layers
# removed from text that other people's computers generated: it may not control the terminal
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def settle_colours() -> None:
    """Print without colours if NO_COLOR (https://no-color.org) is set, or the terminal has none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        click.get_current_context().color = False


def show_piece(piece: "Piece") -> None:
    """Print a piece of text; coloured by origin in a terminal."""
    text = piece.text
    if sys.stdout.isatty():
        text = _styled(CONTROLS.sub("", text), piece.origin)
    click.echo(text, nl=False)
    sys.stdout.flush()


def show_summary(generation: "Generation") -> None:
    """End the text; print a legend (in a terminal) and two lines of figures to standard error."""
    click.echo()
    if sys.stdout.isatty() and generation.stats.drafted_tokens:
        seen = {piece.origin for piece in generation.pieces}
        legend = [_styled(text, origin) for origin, text in LEGEND.items() if origin in seen]
        click.echo("  ".join(legend), err=True)
    click.echo(summary(generation), err=True)
    if spent := time_and_bottleneck(generation.stats):
        click.echo(spent, err=True)


def show_audits(audits: "Audits") -> None:
    """Print to standard error which peers were found to lie, and which audits could not be done."""
    if audits.caught:
        peers = ", ".join(f"...{peer_id[-8:]}" for peer_id in audits.caught)
        click.echo(f"banned for computing something else than the model: {peers}", err=True)
    if reasons := [*unaudited(audits)]:
        click.echo(f"not audited: {', '.join(reasons)}", err=True)


def unaudited(audits: "Audits") -> Iterator[str]:
    """Yield, for each reason, how many texts were due for an audit and not audited."""
    from swarm.audit.unaudited import Reason

    for code, count in audits.failures.items():
        yield f"{_texts(count)} ({Reason(code).in_words})"
    if audits.waiting:
        yield f"{_texts(audits.waiting)} (that takes longer than this command waited)"


def _texts(count: int) -> str:
    return "1 text" if count == 1 else f"{count} texts"


def summary(generation: "Generation") -> str:
    """Return one line about a text: speed, loops, drafting, route."""
    stats = generation.stats
    speed = f"{stats.tokens_per_second:.1f} tokens/s"
    parts = [
        f"{stats.new_tokens} tokens in {stats.seconds:.1f} s ({speed})",
        f"{stats.loops} loops of {stats.loop_ms:.0f} ms",
    ]
    if stats.drafted_tokens:
        parts.append(f"{stats.accepted_tokens} of {stats.drafted_tokens} drafted tokens kept")
    if stats.relaxed_tokens:
        parts.append(
            f"{stats.relaxed_tokens} of these by leniency, for {stats.deficit_nats:.1f} nats"
        )
    if stats.failovers:
        worst_ms = max(failover.pause_ms for failover in stats.failovers)
        parts.append(
            f"peers replaced {len(stats.failovers)} times, with pauses of {worst_ms:.0f} ms at most"
        )
    if stats.draft_error:
        parts.append(f"drafting failed ({stats.draft_error})")
    route = " > ".join(
        f"{stop.layers[0]}:{stop.layers[1]} ...{stop.peer_id[-6:]}" for stop in generation.route
    )
    return ", ".join(parts) + f"; {stats.verification}; route {route}"


def time_and_bottleneck(stats: "Stats") -> str:
    """Return one line: where a text's time went, and what holds its speed back; "" if unknown."""
    from swarm.terminal.bottleneck import bottleneck, time_spent

    if stats.share is None:
        return ""
    cause = bottleneck(stats)
    return f"time: {time_spent(stats.share)}" + (f"; held back because {cause}" if cause else "")


def show_fates(pieces: "Sequence[Piece]") -> None:
    """Print the fate of every token, one a line; a run of kept drafted tokens is one line."""
    click.echo()
    for line in fates(pieces):
        click.echo(line)


def fates(pieces: "Sequence[Piece]") -> Iterator[str]:
    """Yield the lines of `show_fates`."""
    for origin, group in groupby(enumerate(pieces), key=lambda each: each[1].origin):
        tokens = list(group)
        for run in [tokens] if origin == "drafted" else [[token] for token in tokens]:
            at, piece = run[0]
            text = repr("".join(CONTROLS.sub("", each.text) for _, each in run))
            yield f"{at:5}  {_styled(f'{origin:9}', origin)}  {text}{_why(piece)}"


def _why(piece: "Piece") -> str:
    if piece.origin in ("drafted", "target"):
        return ""
    instead_of = "the target's choice was" if piece.origin == "relaxed" else "drafted was"
    reason = f"key token: {piece.reason}" if piece.key else piece.reason
    why = f" ({reason})" if reason else ""
    return f"  {instead_of} {CONTROLS.sub('', piece.instead_of)!r}{why}"


def show_status(network: str, reports: "Sequence[ModelStatus]") -> None:
    """Print a table for each model, with a bar of layers for each peer."""
    from rich.console import Console
    from rich.text import Text

    from swarm.terminal.tables import print_table

    console = Console()
    columns = ("peer", "layers", "span", "dtype", "tok/s", "cache", "state", "path", "rtt ms")
    bar_width = min(32, max(8, console.width - OTHER_COLUMNS))
    if not reports:
        console.print(f"The network {network} is up, but no peer in it serves a model.")
    for report in reports:
        title = f"{report.model}  ({report.model_layers} layers, weights {report.fingerprint[:12]})"
        rows = [_peer_row(peer, report.model_layers, bar_width) for peer in report.peers]
        print_table(
            console, columns, rows, title=title, left=("layers", "span", "dtype", "state", "path")
        )
        if report.estimated_peers is not None:
            about = _rounded(report.estimated_peers)
            console.print(f"A sample of {len(report.peers)} peers; there are about {about:,}.")
        console.print(Text(report.why, "bold red") if report.why else "All layers are served.")


def show_routes(choices: "Sequence[Choice]") -> None:
    """Print a table for each chain: its expected loop, and the times that make it up."""
    from rich.console import Console

    from swarm.terminal.tables import print_table

    console = Console()
    for choice, name in zip(choices, ("The chain", "The runner-up"), strict=False):
        title = f"{name}: a loop of {choice.plan.loop_ms:.1f} ms is expected"
        rows = []
        for stage in choice.plan.stages:
            peer = choice.candidates[stage.peer_id]
            computes_ms = peer.layer_ms * (stage.last - stage.first)
            figures = (f"{each:.1f}" for each in (peer.rtt_ms, peer.fixed_ms, computes_ms))
            peer_and_layers = (f"\u2026{stage.peer_id[-8:]}", f"{stage.first}:{stage.last}")
            rows.append((*peer_and_layers, peer.dtype, *figures))
        columns = ("peer", "layers", "dtype", "rtt ms", "waits ms", "computes ms")
        print_table(console, columns, rows, title=title, left=("dtype",))
    if len(choices) == 1:
        console.print("There is no other: each of these peers is needed.")


def _peer_row(peer: "PeerStatus", model_layers: int, bar_width: int) -> "list[str | Text]":
    return [
        f"\u2026{peer.peer_id[-8:]}",
        _bar(peer.layers, model_layers, bar_width),
        f"{peer.layers[0]}:{peer.layers[1]}{' +head' * peer.head}",
        peer.dtype,
        f"{peer.tokens_per_second:.0f}",
        f"{peer.free_cache_tokens}",
        peer.state if peer.rtt_ms is not None else "unreachable",
        peer.path or "-",
        f"{peer.rtt_ms:.1f}" if peer.rtt_ms is not None else "-",
    ]


def _rounded(number: int) -> int:
    """Round to two digits, which is all that an estimate has."""
    return round(number, 2 - len(str(number)))


def _styled(text: str, origin: "Origin") -> str:
    style = STYLES[origin]
    return click.style(text, bold=True) if style == "bold" else click.style(text, fg=style)


def _bar(layers: tuple[int, int], model_layers: int, width: int = 32) -> "Text":
    """Draw where a span lies in the model, in ``width`` characters at most, one at least for it."""
    from rich.text import Text

    width = min(width, model_layers)
    first = layers[0] * width // model_layers
    last = max(first + 1, -(-layers[1] * width // model_layers))
    return Text.assemble(
        ("·" * first, "dim"), ("█" * (last - first), "cyan"), ("·" * (width - last), "dim")
    )
