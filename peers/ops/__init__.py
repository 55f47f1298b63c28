"""What an operator sees of a peer, and how it runs as a service."""
