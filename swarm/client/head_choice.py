"""Whether a client holds the model's head, or the last peer of its chains does."""

import logging
from typing import Literal, get_args

import psutil

from swarm.errors import ConfigError
from swarm.model.checkpoint import Checkpoint

HeadChoice = Literal["auto", "local", "peer"]
HEAD_CHOICES: tuple[HeadChoice, ...] = get_args(HeadChoice)
WEIGHT_BYTES = 4  # of float32
MOST_MEMORY = 0.8  # share of what is available: a draft model and other programs need some

log = logging.getLogger(__name__)


def check_head_choice(choice: str) -> None:
    """Raise `ConfigError` for anything but a `HeadChoice`."""
    if choice not in HEAD_CHOICES:
        raise ConfigError("head", f"{choice!r} is unknown; give {', '.join(HEAD_CHOICES)}")


def holds_head(choice: HeadChoice, checkpoint: Checkpoint) -> bool:
    """Return whether the client loads the head itself; with "auto", if it fits in memory."""
    if choice != "auto":
        return choice == "local"
    needs_bytes = (checkpoint.vocab_size + 1) * checkpoint.hidden_size * WEIGHT_BYTES
    has_bytes = int(psutil.virtual_memory().available * MOST_MEMORY)
    if needs_bytes <= has_bytes:
        return True
    log.warning(
        "the head of %s needs %.1f GB, and %.1f GB are free for it: peers have to hold it",
        checkpoint.plain_name,
        needs_bytes / 1e9,
        has_bytes / 1e9,
    )
    return False
