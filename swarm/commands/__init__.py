"""What each command of ``swarm`` takes. A module a command; what it does is imported when it runs."""
