"""Which chain of peers: pure functions over what is known."""
