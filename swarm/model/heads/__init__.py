"""Heads that guess next tokens from the target's hidden states, as they are published."""
