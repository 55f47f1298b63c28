"""Products on a CPU: in 8 bits, several in one, and how to find which is the fastest."""
