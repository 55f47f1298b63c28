"""The console script ``swarm-peer``: it handles signals first, and imports the rest after that."""

from swarm.cli.start import end_on_signals


def main() -> None:
    """Run ``swarm-peer``."""
    end_on_signals()
    from peers.cli import main

    main()
