"""Which chain of peers, and which layers a peer serves: pure functions."""
