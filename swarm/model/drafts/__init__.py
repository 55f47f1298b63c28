"""Draft models: which one a name means, how it is read, and in which dtype it is fastest."""
