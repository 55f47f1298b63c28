"""Rules that decide which drafted tokens are accepted (docs/verification.md)."""
