"""Sessions: what clients and peers say, and what is done about it."""
