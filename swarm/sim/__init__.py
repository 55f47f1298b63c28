"""A swarm of thousands, simulated: the real planner, placement and record keys, a made-up world."""
