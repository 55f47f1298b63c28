"""``python -m swarm.cli`` is `swarm`."""

from swarm.cli.start import main

main()
