"""What clients and other peers send, and what this peer does about it."""
