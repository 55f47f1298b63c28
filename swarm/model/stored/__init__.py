"""Weights in the bits that a model's publisher chose: they stay packed until they are used."""
