"""What peers know of each other: signed, short-lived records in a Kademlia DHT."""
