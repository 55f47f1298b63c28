"""``swarm chat``: a conversation in a terminal, or line by line through pipes."""
