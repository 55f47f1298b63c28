"""What torch reads from the environment when it is imported."""

import os

SETTINGS = {
    # Linux is asked for huge pages for every tensor of 2 MB and more: a forward reads all weights
    # of a model, and in pages of 4 KB spends a part of that time on finding out where these lie.
    "THP_MEM_ALLOC_ENABLE": "1",
    # A thread that waits for the others of a product sleeps. By default it spins, on a core that
    # the others may need: on a busy computer a draft's token then takes many times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare_torch() -> None:
    """Set what is not set yet, for this process and for those that it starts.

    Call this before torch is imported.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
