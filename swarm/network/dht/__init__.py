"""hivemind's DHT: a node, what it stores and lets pass, and the records that peers publish in
it."""
