"""Memory in huge pages for torch's large tensors.

A forward reads all weights of a model from memory. In pages of 4 KB, a processor spends a part of
that time on finding out where the pages lie.
"""

import os

# torch then asks Linux for huge pages for every tensor of 2 MB and more. It reads the variable at
# its first allocation. Elsewhere it changes nothing.
VARIABLE = "THP_MEM_ALLOC_ENABLE"


def use_huge_pages() -> None:
    """Let torch use huge pages, in this process and in those that it starts.

    A choice that the user has made stays. Call this before torch is imported.
    """
    os.environ.setdefault(VARIABLE, "1")
