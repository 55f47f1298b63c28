"""Models of real sizes without their weights: what a swarm costs a client, on one machine."""
