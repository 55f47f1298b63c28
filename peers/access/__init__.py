"""How others reach this peer, and what each of them may ask of it."""
