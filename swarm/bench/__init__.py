"""How fast a swarm decodes, in every way that it knows, measured side by side."""
