"""How the console script ``swarm-peer`` begins: it heeds signals first, and imports the rest after
that."""

from swarm.cli.start import end_on_signals


def main() -> None:
    """Run ``swarm-peer``."""
    end_on_signals()
    from peers.cli import main

    main()
