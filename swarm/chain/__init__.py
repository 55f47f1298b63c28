"""One session over a chain of peers: which peers, what is sent to them, and what happens when one
fails."""
