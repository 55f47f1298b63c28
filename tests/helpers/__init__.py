"""What the tests of several modules use: models, links, peers and whole swarms."""
