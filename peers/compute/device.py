"""Which device to compute on."""

from dataclasses import dataclass

import torch

from swarm.errors import LocalError


@dataclass(eq=False)
class NoSuchDevice(LocalError):
    """A device that torch does not have here."""

    name: str
    why: str

    def __str__(self) -> str:
        return (
            f"there is no device {self.name!r} here ({self.why}); give --device cpu or see"
            " `swarm-peer doctor`"
        )


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, else the CPU.

    Raises:
        NoSuchDevice: if it cannot hold a tensor.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # read back: the "meta" device holds nothing
    except (RuntimeError, AssertionError) as error:
        raise NoSuchDevice(name, str(error).split("\n")[0]) from None
    return device
