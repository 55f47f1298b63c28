"""Drafters: they guess the target's next tokens."""
