"""``python -m swarm.cli`` runs ``swarm``."""

from swarm.cli.start import main

main()
