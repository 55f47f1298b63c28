"""How fast a swarm decodes: all ways of decoding, measured side by side."""
