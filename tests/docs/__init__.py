"""What the documentation says, held against the code.

`python -m tests.docs` writes the parts that are made from it.
"""
