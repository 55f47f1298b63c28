"""Helpers that tests of several modules share: models, links, peers and whole swarms."""
