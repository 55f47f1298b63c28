"""Checkpoints and the parts of a model that are built from them."""
