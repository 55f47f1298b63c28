"""Which layers a peer serves, and how far its neighbours are."""
