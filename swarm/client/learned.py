"""What a client has learned of a draft's errors, from one start to the next.

One JSON file for each pair of target and draft. It holds the biases of single tokens, those that
moved most. Pairs of tokens would tell of the texts that they come from, and are not written.
"""

import hashlib
import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.decoding.drafting.correction import MOST, Correction, TokenBias
from swarm.util.files import write_whole

OWN = ""  # the owner of texts that name none (`Options.owner`): only what these teach is written
MAX_TOKENS = 4096
MAX_FILE_BYTES = 1 << 20

log = logging.getLogger(__name__)

_Entry = tuple[
    Annotated[int, Field(ge=0, lt=1 << 31)],
    Annotated[float, Field(ge=-MOST, le=MOST)],
    Annotated[float, Field(ge=1, lt=1e9)],
]


class _Page(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    biases: tuple[_Entry, ...] = Field(default=(), max_length=MAX_TOKENS)  # as `TokenBias`


class LearnedBiases:
    """The file of one target and one draft.

    Reading and writing never fail: a file that cannot be read counts as empty, and one that cannot
    be written is lost.

    Args:
        folder: where the file lies; None remembers nothing.
        fingerprint: of the target.
        draft: the folder or hub id of the draft.
    """

    def __init__(self, folder: Path | None, fingerprint: str, draft: str) -> None:
        pair = hashlib.sha256(f"{fingerprint} {draft}".encode()).hexdigest()[:16]
        self._file = folder / f"learned-{pair}.json" if folder else None

    def read(self, correction: Correction) -> None:
        """Let a new correction begin with what the file holds."""
        if self._file is None:
            return
        try:
            if self._file.stat().st_size <= MAX_FILE_BYTES:
                page = _Page.model_validate_json(self._file.read_bytes())
                correction.begin_with(TokenBias(*entry) for entry in page.biases)
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.info("%s is not read: %s", self._file, error)

    def write(self, correction: Correction) -> None:
        """Write what a correction has learned, if it has learned anything."""
        learned = correction.most_moved(MAX_TOKENS)
        if self._file is None or not learned:
            return
        try:
            write_whole(self._file, _Page(biases=learned).model_dump_json())
        except OSError as error:
            log.info("%s was not written: %s", self._file, error)
