"""How other members reach this peer, and what each may ask of it."""
