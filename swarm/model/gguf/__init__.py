"""Checkpoints in one GGUF file, as llama.cpp makes them; blocks of weights stay packed."""
