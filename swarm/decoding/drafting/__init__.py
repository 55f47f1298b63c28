"""Guessing what the target will say."""
