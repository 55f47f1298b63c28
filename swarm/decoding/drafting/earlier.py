"""Earlier texts that a new one may be copied from."""

from array import array
from collections import deque
from collections.abc import Sequence

from swarm.decoding.drafting.prefix import common_prefix
from swarm.decoding.drafting.suffixes import SuffixAutomaton

MOST_TOKENS = 1 << 15  # 4 MB in English texts, and 1 MB at most for the recent ones
RECENT = 8  # texts that a new one is compared with
OVERLAP = 32  # tokens of what is known already that lead to what is new


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
        self._recent: deque[array[int]] = deque(maxlen=RECENT)
        self.parts: tuple[SuffixAutomaton, ...] = (SuffixAutomaton(),)

    def add(self, text: Sequence[int]) -> None:
        """Add a text, its prompt included."""
        text = list(text)
        known = max((common_prefix(list(recent), text) for recent in self._recent), default=0)
        self._recent.append(array("i", text[: self._most]))
        if known == len(text):
            return
        half = self._most // 2
        new = text[max(0, known - OVERLAP) :][-half:]
        if len(self.parts[0]) + len(new) > half:
            # An automaton forgets nothing: the older of two is dropped as a whole.
            self.parts = (SuffixAutomaton(), self.parts[0])
        runs = self.parts[0]
        runs.break_off()
        for token in new:
            runs.append(token)
