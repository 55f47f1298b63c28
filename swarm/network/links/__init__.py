"""Links between members: addresses, handshakes, connections. They know no DHT."""
