"""Stories as plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swarm.sim.report import balance, discovery_kb, old_discovery_kb, ratios
from swarm.sim.scenario import CAPACITIES, Story
from swarm.terminal.plots import load_pyplot


def plot(stories: Sequence[Story], folder: Path) -> None:
    """Write scale-coverage.png, scale-discovery.png and scale-loops.png.

    Raises:
        MissingExtra: without matplotlib.
    """
    pyplot = load_pyplot("--plots")
    _plot_coverage(pyplot, stories, folder / "scale-coverage.png")
    _plot_discovery(pyplot, stories, folder / "scale-discovery.png")
    _plot_loops(pyplot, stories, folder / "scale-loops.png")


def _plot_coverage(pyplot: Any, stories: Sequence[Story], file: Path) -> None:
    figure, (peers, speed) = pyplot.subplots(2, figsize=(9, 7), sharex=True, layout="constrained")
    for story in stories:
        minutes = [moment.at_s / 60 for moment in story.moments]
        capacity = sum(layers * percent / 100 for layers, percent in CAPACITIES)  # on average
        share = story.scenario.model_layers / capacity / story.scenario.peers
        label = f"{story.scenario.peers:,} peers"
        peers.plot(minutes, [moment.fewest_peers * share for moment in story.moments], label=label)
        speed.plot(minutes, [balance(moment) for moment in story.moments], label=label)
    for axes in (peers, speed):
        axes.axvline(stories[0].scenario.joining_s / 60, color="grey", linestyle=":")
        axes.axvline(stories[0].scenario.departure_s / 60, color="red", linestyle=":")
        axes.grid(alpha=0.3)
    peers.set_ylabel("peers of the weakest layer, over\nas many as each would have")
    speed.set_ylabel("weakest layer's speed over the mean")
    speed.set_xlabel("minutes (grey: all have come; red: many leave without a word)")
    peers.legend()
    figure.savefig(file, dpi=110)


def _plot_discovery(pyplot: Any, stories: Sequence[Story], file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    sizes = [story.scenario.peers for story in stories]
    new = [discovery_kb(story) for story in stories]
    axes.loglog(sizes, new, "o-", label="keys by block and hash, a sample")
    old = [old_discovery_kb(story.scenario.peers, story.scenario.model_layers) for story in stories]
    axes.loglog(sizes, old, "s--", label="one key for each first layer")
    axes.set_xlabel("peers")
    axes.set_ylabel("KB that a client's discovery takes")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(file, dpi=110)


def _plot_loops(pyplot: Any, stories: Sequence[Story], file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for story in stories:
        values = ratios(story)
        shares = [100 * (i + 1) / len(values) for i in range(len(values))]
        axes.plot(values, shares, label=f"{story.scenario.peers:,} peers")
    axes.set_xlabel("loop of the chosen chain over that of a client that knows all peers")
    axes.set_ylabel("% of clients")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)
