"""The command line of the check: `python -m tests.gpu`."""

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import torch
from rich.console import Console
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu import client, generation, spans, speed
from gpu.report import Check, run_all
from gpu.sizes import REAL, TINY, Sizes

CHECKS = {
    "spans": (spans.spans_equal_the_cpus, "Spans equal the CPU's"),
    "stages": (speed.stage_times, "The time of a stage, by batch and by sessions"),
    "dtypes": (speed.dtypes_compared, "bfloat16 against float32"),
    "head": (client.head_equals_the_cpus, "The client's head"),
    "draft": (client.draft_equals_the_cpus, "Drafts equal the CPU's"),
    "draft-times": (client.draft_times, "The time of a draft model's forward"),
    "generation": (generation.text_equals_the_cpus, "A generation over peers"),
}
SIZES = {"real": REAL, "tiny": TINY}


def checks(
    sizes: Sizes, device: torch.device, folder: Path, names: Sequence[str] = tuple(CHECKS)
) -> list[Check]:
    """Return the checks of these names; each writes its models into a folder of its own."""
    return [
        Check(name, title, partial(run, sizes, device, folder / name))
        for name, (run, title) in CHECKS.items()
        if name in names
    ]


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N, mps or cpu.")
@click.option(
    "--sizes",
    type=click.Choice([*SIZES]),
    help="How large the models are; tiny on the CPU, else real.",
)
@click.option(
    "--only", type=click.Choice([*CHECKS]), multiple=True, help="Run this check; may be repeated."
)
def main(device: str, sizes: str | None, only: tuple[str, ...]) -> None:
    """Check on a GPU what no other test can: that it computes what the CPU does, and how fast.

    Takes about five minutes at real sizes, 12 GB of memory and 6 GB of temporary files. Exits with
    1 if a check fails.
    """
    chosen = _device(device)
    small = "tiny" if chosen.type == "cpu" else "real"
    with tempfile.TemporaryDirectory(prefix="swarm-gpu-") as folder:
        os.environ["SWARM_CACHE"] = f"{folder}/cache"
        os.environ["SWARM_HOME"] = f"{folder}/home"
        logging.disable_progress_bar()
        console = Console()
        console.print(f"{_name(chosen)}, torch {torch.__version__}\n", highlight=False)
        names = only or tuple(CHECKS)
        failed = run_all(checks(SIZES[sizes or small], chosen, Path(folder), names), console)
    sys.exit(1 if failed else 0)


def _device(name: str) -> torch.device:
    """Return the device, or exit with a sentence if this computer does not have it."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError, NotImplementedError):
        sys.exit(
            f"This computer has no device {name!r} that torch can compute on, so there is nothing "
            "to check here. On a host with a GPU, install torch's build for it; --device cpu runs "
            "the same checks at tiny sizes."
        )
    return device


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


if __name__ == "__main__":
    main()
