"""Messages and tensors as bytes: typed, bounded, checked once at the edge. No sockets in here."""
