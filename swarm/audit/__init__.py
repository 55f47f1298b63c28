"""Detecting peers that compute something else than the model: compare, judge, blame. No I/O."""
