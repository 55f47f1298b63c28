"""Which layers a peer serves, and near whom."""
