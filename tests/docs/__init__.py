"""Tests that compare the documentation with the code.

`python -m tests.docs` writes the parts of it that are generated.
"""
