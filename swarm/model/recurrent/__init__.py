"""Layers that keep a state: it cannot be cut like keys and values, but it can be kept."""
