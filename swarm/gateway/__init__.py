"""``swarm serve``: an OpenAI-compatible HTTP server in front of a swarm, and its pages."""
