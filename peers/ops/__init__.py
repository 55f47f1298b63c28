"""What an operator sees of a peer."""
