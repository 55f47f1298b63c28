"""Rules that say which drafted tokens are kept (docs/verification.md)."""
