"""What `SwarmClient` is made of: one text from its prompt to its last token."""
