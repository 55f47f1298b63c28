"""For users of Hugging Face transformers: `SwarmModel`, whose ``generate`` takes and gives what
theirs does."""
