"""Noticing peers that compute something else than the model: what to compare, what it means, whom
to blame. No I/O.
"""
