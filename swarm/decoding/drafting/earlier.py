"""Earlier texts that a new one may be copied from."""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence

from swarm.decoding.drafting.suffixes import SuffixAutomaton

MOST_TOKENS = 1 << 15  # 4 MB in English texts, and 1 MB at most for the recent ones
RECENT = 8  # texts that a new one is compared with
OVERLAP = 32  # tokens of what is known already that lead to what is new
SLICE = 64  # tokens that are added without a pause: less than a millisecond
TOKEN_BYTES = 4


class EarlierTexts:
    """The latest texts of one user, in bounded memory. Nothing is written to a disk.

    A conversation sends its beginning again with every turn, and many prompts begin alike: what a
    new text shares with the beginning of a recent one is not added again.

    Not safe for several threads.

    Args:
        most: tokens that are kept, and at least half as many, once there were as many.

    Attributes:
        parts: what is kept, the newest first.
    """

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self._most = most
        self._recent: deque[bytes] = deque(maxlen=RECENT)
        self.parts: tuple[SuffixAutomaton, ...] = (SuffixAutomaton(),)

    def add(self, text: Sequence[int]) -> None:
        """Add a text, its prompt included."""
        for _ in self.adding(text):
            pass

    def adding(self, text: Sequence[int]) -> Iterator[int]:
        """Add a text, its prompt included, and pause after every few tokens.

        Copies may be drafted at each pause. Add one text after the other.

        Yields:
            How many tokens have been added.
        """
        packed = array("i", text).tobytes()
        known = max((_common_prefix(recent, packed) for recent in self._recent), default=0)
        self._recent.append(packed[: TOKEN_BYTES * self._most])
        if known == len(text):
            return
        half = self._most // 2
        new = text[max(0, known - OVERLAP) :][-half:]
        if len(self.parts[0]) + len(new) > half:
            # An automaton forgets nothing: the older of two is dropped as a whole.
            self.parts = (SuffixAutomaton(), self.parts[0])
        runs = self.parts[0]
        runs.break_off()
        for done, token in enumerate(new, 1):
            runs.append(token)
            if done % SLICE == 0:
                yield done


def _common_prefix(a: bytes, b: bytes) -> int:
    """Return how many leading tokens of `TOKEN_BYTES` two texts share."""
    same, most = 0, min(len(a), len(b)) // TOKEN_BYTES
    while same < most:  # `same` tokens are the same, and `most` at most
        tried = (same + most + 1) // 2
        part = slice(TOKEN_BYTES * same, TOKEN_BYTES * tried)
        if a[part] == b[part]:
            same = tried
        else:
            most = tried - 1
    return same
