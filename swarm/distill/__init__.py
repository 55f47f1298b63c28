"""Training a small head that drafts for one target, on texts that the target has written itself."""
