"""Plots as files, by matplotlib, which is an optional dependency."""

from typing import Any

from swarm.errors import MissingExtra


def load_pyplot(option: str) -> Any:
    """Return matplotlib's pyplot, which draws into files.

    Args:
        option: the command-line option that asks for the plot, for the error.

    Raises:
        MissingExtra: without matplotlib.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("plots", "matplotlib", "plot", f"leave out {option}") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot
