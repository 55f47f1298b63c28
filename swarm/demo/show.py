"""``swarm demo``: start a swarm, decode three problems in three ways, print a table, stop it."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from swarm.bench.compare import Comparison, compare
from swarm.bench.ways import BRANCHES, PAPERS_WINDOW, PLAIN
from swarm.client.client import SwarmClient
from swarm.demo.problems import problems
from swarm.demo.swarm import demo_swarm
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.outputs import Generation, Piece, Stats
from swarm.terminal.console import LEGEND, STYLES, time_and_bottleneck
from swarm.terminal.tables import print_table

PROMPTS = 3
SEED = 7  # of the held-out problems
MAX_NEW_TOKENS = 200
PICTURE_WIDTH = 110  # columns
WAYS = (PLAIN, PAPERS_WINDOW, BRANCHES)


async def run_demo(
    peers: int,
    link_ms: float,
    prompts: Sequence[str],
    as_json: bool,
    picture: Path | None = None,
    compute: ComputeOptions = AUTOMATIC,
) -> None:
    """Run the whole demonstration.

    Args:
        as_json: print one JSON object and nothing else.
        picture: an SVG file for the run as a terminal shows it.
        compute: where the client computes.
    """
    width = PICTURE_WIDTH if picture else None
    console = Console(quiet=as_json, record=picture is not None, width=width)
    prompts = prompts or [p.prompt for p in islice(problems(SEED, held_out=True), PROMPTS)]
    console.print(f"Starting a bootstrap node and {peers} peers as processes on this machine ...")
    async with demo_swarm(peers, link_ms, compute) as (_, client):
        stages = [link.stage for link in await client.find_chain()]
        names = [f"{each.first}:{each.last} ...{each.peer_id[-6:]}" for each in stages]
        route = "  >  ".join(names)
        console.print(f"Found through the DHT: client  >  {route}  >  client")
        console.print(f"Links: {link_ms:g} ms one way, [bold]emulated[/] in the link layer.")
        console.print(_legend(), "\n")
        await client.generate(prompts[0], max_new_tokens=8)  # warm-up, not counted
        comparisons = [await _show_comparison(console, client, prompt) for prompt in prompts]
    if as_json:
        print(json.dumps(_summary(comparisons, peers, link_ms)))
    else:
        _print_table(console, comparisons)
        console.print(_verdict(comparisons))
        console.print(_time_spent(comparisons))
    if picture:
        console.save_svg(str(picture), title="make demo")


async def _show_comparison(console: Console, client: SwarmClient, prompt: str) -> Comparison:
    """Decode a prompt in every way, and show the texts as they come."""
    texts = {way.name: Text() for way in WAYS}
    console.print(Text(prompt, "dim"))
    with Live(_panels(texts), console=console, refresh_per_second=12, transient=False) as live:

        async def show(name: str, piece: Piece) -> None:
            texts[name].append(piece.text, STYLES[piece.origin] if name != PLAIN.name else "")
            live.update(_panels(texts))

        comparison = await compare(client, prompt, WAYS, max_new_tokens=MAX_NEW_TOKENS, show=show)
        done = {
            way: f"{way}: {generation.stats.seconds:.1f} s"
            for way, generation in comparison.ways.items()
        }
        live.update(_panels(texts, done))
    console.print()
    return comparison


def _panels(texts: dict[str, Text], titles: dict[str, str] | None = None) -> Columns:
    titles = titles or {}
    panels = [
        Panel(text, title=titles.get(name, name), title_align="left")
        for name, text in texts.items()
    ]
    return Columns(panels, equal=True, expand=True)


def _legend() -> Text:
    origins = (Text(LEGEND[origin], STYLES[origin]) for origin in LEGEND)
    return Text("Colours: ").append_text(Text(", ").join(origins))


def _print_table(console: Console, comparisons: Sequence[Comparison]) -> None:
    columns = (
        "",
        "",
        "tokens",
        "tok/s",
        "loop ms",
        "in flight",
        "work",
        "kB",
        "speedup",
        "of bound",
    )
    rows = []
    for number, comparison in enumerate(comparisons, 1):
        for way, generation in comparison.ways.items():
            key = f"{number}" if generation is comparison.plain else ""
            share = comparison.bound_share(way)
            speedup = f"{comparison.speedup(way):.2f}x"
            bound = "" if share is None else f"{share:.0%}"
            rows.append((key, way, *_figures(generation.stats), speedup, bound))
    last = range(len(WAYS) - 1, len(rows), len(WAYS))
    title = "Three ways of decoding, same swarm, same prompts"
    print_table(console, columns, rows, title=title, keys=2, box=box.SIMPLE_HEAD, sections=last)


def _figures(stats: Stats) -> tuple[str, ...]:
    return (
        f"{stats.new_tokens}",
        f"{stats.tokens_per_second:.1f}",
        f"{stats.loop_ms:.0f}",
        f"{stats.in_flight_mean:.1f}",
        f"{stats.positions_per_token or 0:.1f}",
        f"{(stats.bytes_sent + stats.bytes_received) / 1e3:.1f}",
    )


def _verdict(comparisons: Sequence[Comparison]) -> str:
    same = sum(all(map(comparison.agrees, comparison.ways)) for comparison in comparisons)
    window = _overall(comparisons, PAPERS_WINDOW.name)
    streaming = _overall(comparisons, BRANCHES.name)
    return (
        f"Overall [bold]{streaming:.2f}x[/] as fast as plain decoding by streaming, {window:.2f}x "
        f"a window at a time. {same} of {len(comparisons)} texts are identical token for token in "
        "all ways.\n'in flight': frames on their way at once; 'work': positions that the peers "
        "computed for each token; 'of bound': share of the most that any speculation could reach "
        "here (docs/architecture.md)."
    )


def _time_spent(comparisons: Sequence[Comparison]) -> Text:
    """Return where the time of the longest streamed text went; empty if it is unknown."""
    streamed = [comparison.ways[BRANCHES.name].stats for comparison in comparisons]
    longest = max(streamed, key=lambda stats: stats.seconds)
    return Text(f"The longest text by streaming: {time_and_bottleneck(longest)}.")


def _overall(comparisons: Sequence[Comparison], way: str) -> float:
    """Return the speedup over all prompts together: tokens and seconds are summed first."""

    def rate(generations: Sequence[Generation]) -> float:
        seconds = sum(generation.stats.seconds for generation in generations)
        return sum(generation.stats.new_tokens for generation in generations) / seconds

    return rate([c.ways[way] for c in comparisons]) / rate([c.plain for c in comparisons])


def _summary(comparisons: Sequence[Comparison], peers: int, link_ms: float) -> dict[str, object]:
    return {
        "peers": peers,
        "link_ms": link_ms,
        "link_emulated": True,
        "prompts": [comparison.as_dict() for comparison in comparisons],
        "speedup": {way.name: _overall(comparisons, way.name) for way in WAYS},
    }
