"""Hostile bytes and hostile sessions, made up by the thousand from a seed.

`python -m tests.fuzz --help` runs as many as are asked for; the tests beside this file run a few,
and replay `corpus/`.
"""
