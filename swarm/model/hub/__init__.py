"""Checkpoints on the Hugging Face hub, of which only the bytes that are needed are fetched."""
