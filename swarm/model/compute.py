"""Where a client computes: the device of the LM head; device, dtype and head of the draft model.

Light: the command line imports it for its options.
"""

import re
from dataclasses import dataclass

from swarm.errors import ConfigError

AUTO = "auto"
DEVICE_NAMES = "auto, cpu, cuda, cuda:N or mps"
ALL = "all"
DRAFT_DTYPES = (AUTO, "float32", "bfloat16", "int8", "nf4")
MIN_DRAFT_VOCAB = 1024  # with less, hardly a word is left to propose
NUMBER = re.compile(r"[0-9]{1,9}")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
# Below, a model is small: one pass takes a CPU few milliseconds in float32, on a single core. A GPU
# or a smaller dtype would gain nothing.
SMALL_WEIGHTS = 16_000_000


def is_device(name: str) -> bool:
    """Return whether this is the name of a device, here or on another computer."""
    return _DEVICE.fullmatch(name) is not None


def draft_vocab_of(text: str) -> int | str:
    """Return ``draft_vocab`` as a user writes it: a word, or a number of tokens.

    Raises:
        ConfigError: if it is neither.
    """
    number = NUMBER.fullmatch(text) is not None
    return ComputeOptions(draft_vocab=int(text) if number else text).draft_vocab


@dataclass(frozen=True)
class ComputeOptions:
    """What a user asks for.

    Attributes:
        device: of the LM head; ``auto`` is the first GPU, else the CPU.
        draft_device: of the draft model; ``auto`` is the same as ``device``.
        draft_dtype: of the draft model's weights; ``auto`` is the fastest one on this computer.
        draft_vocab: the tokens that the draft model's head computes. ``all`` are all of its own,
            ``auto`` those that the target has, too; a number, so many of these, the most frequent.

    Raises:
        ConfigError: for a malformed device, an unknown dtype, or a vocabulary of no such size.
    """

    device: str = AUTO
    draft_device: str = AUTO
    draft_dtype: str = AUTO
    draft_vocab: int | str = AUTO

    def __post_init__(self) -> None:
        for field, name in (("device", self.device), ("draft_device", self.draft_device)):
            if not is_device(name):
                raise ConfigError(field, f"{name!r} is no device; give {DEVICE_NAMES}")
        if self.draft_dtype not in DRAFT_DTYPES:
            known = ", ".join(DRAFT_DTYPES)
            problem = f"{self.draft_dtype!r} is none that we know; give one of {known}"
            raise ConfigError("draft_dtype", problem)
        vocab = self.draft_vocab
        fits = vocab >= MIN_DRAFT_VOCAB if isinstance(vocab, int) else vocab in (AUTO, ALL)
        if not fits:
            problem = f"{vocab!r} is none; give auto, all, or a number from {MIN_DRAFT_VOCAB} on"
            raise ConfigError("draft_vocab", problem)

    @property
    def drafts_on(self) -> str:
        """The device that is asked for the draft model."""
        return self.device if self.draft_device == AUTO else self.draft_device


AUTOMATIC = ComputeOptions()
