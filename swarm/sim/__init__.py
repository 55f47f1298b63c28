"""A swarm of thousands, simulated: the real planner, placement and record keys in a made-up
world."""
