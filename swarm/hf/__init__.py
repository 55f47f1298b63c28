"""For users of Hugging Face transformers: `SwarmModel`, with the interface of their models."""
