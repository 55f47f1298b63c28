"""What chat models say, beside plain text: thoughts and calls of tools. No I/O, no network."""
