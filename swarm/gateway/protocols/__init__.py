"""What clients speak: each protocol reads a request and writes a reply of one stream of events."""
