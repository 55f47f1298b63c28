"""What runs on a GPU host: a span of layers, its caches, and the serving side of the wire."""
