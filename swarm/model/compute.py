"""Where a client computes: the device of the LM head, and the device and dtype of the draft model.

Light: the command line imports it for its options.
"""

import re
from dataclasses import dataclass

from swarm.errors import ConfigError

AUTO = "auto"
DEVICE_NAMES = "auto, cpu, cuda, cuda:N or mps"
DRAFT_DTYPES = (AUTO, "float32", "bfloat16", "int8", "nf4")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
# Below, a model is small: one pass takes a CPU few milliseconds in float32, on a single core. A GPU
# or a smaller dtype would gain nothing.
SMALL_WEIGHTS = 16_000_000


def is_device(name: str) -> bool:
    """Return whether this is the name of a device, here or on another computer."""
    return _DEVICE.fullmatch(name) is not None


@dataclass(frozen=True)
class ComputeOptions:
    """What a user asks for.

    Attributes:
        device: of the LM head; ``auto`` is the first GPU, else the CPU.
        draft_device: of the draft model; ``auto`` is the same as ``device``.
        draft_dtype: of the draft model's weights; ``auto`` is the fastest one on this computer.

    Raises:
        ConfigError: for a malformed device, or an unknown dtype.
    """

    device: str = AUTO
    draft_device: str = AUTO
    draft_dtype: str = AUTO

    def __post_init__(self) -> None:
        for field, name in (("device", self.device), ("draft_device", self.draft_device)):
            if not is_device(name):
                raise ConfigError(field, f"{name!r} is no device; give {DEVICE_NAMES}")
        if self.draft_dtype not in DRAFT_DTYPES:
            known = ", ".join(DRAFT_DTYPES)
            problem = f"{self.draft_dtype!r} is none that we know; give one of {known}"
            raise ConfigError("draft_dtype", problem)

    @property
    def drafts_on(self) -> str:
        """The device that is asked for the draft model."""
        return self.device if self.draft_device == AUTO else self.draft_device


AUTOMATIC = ComputeOptions()
