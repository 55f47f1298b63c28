"""Which device to compute on, and copies to it."""

from dataclasses import dataclass

import torch

from swarm.errors import LocalError
from swarm.model.compute import AUTO, SMALL_WEIGHTS

WEIGHT_BYTES = 5  # of GPU memory for each weight: float32, and room to compute


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


def choose_device(name: str, weights: int | None = None) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, else the CPU.

    Args:
        weights: how many will be there, if that is known. ``auto`` is the CPU for a small model,
            and for one that the GPU has no room for.

    Raises:
        NoSuchDevice: if it cannot hold a tensor.
    """
    if name == AUTO:
        name = _best_for(weights)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # read back: the "meta" device holds nothing
    except (RuntimeError, AssertionError) as error:
        raise NoSuchDevice(name, str(error).split("\n")[0]) from None
    return device


def _best_for(weights: int | None) -> str:
    if weights is not None and weights < SMALL_WEIGHTS:
        return "cpu"
    if torch.cuda.is_available():
        free_bytes, _ = torch.cuda.mem_get_info()
        return "cuda" if weights is None or weights * WEIGHT_BYTES <= free_bytes else "cpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16 by itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        one = torch.ones(1, 1, device=device, dtype=torch.bfloat16)
        return bool((one @ one).item() == 1.0)
    except (RuntimeError, TypeError):  # MPS before macOS 14
        return False


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor on ``device``, without waiting for the device's unfinished work."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
