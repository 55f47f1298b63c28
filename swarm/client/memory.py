"""The earlier texts of a client, which later ones may be drafted from."""

from swarm.decoding.drafting.earlier import EarlierTexts

MOST_OWNERS = 32  # 5 MB each


class TextMemory:
    """The earlier texts of each owner, in memory and nowhere else.

    Texts of one owner are never drafted from those of another. Drafts are checked, so no word would
    get across; but a text that comes faster would tell that someone else had one like it.

    Args:
        most: owners whose texts are kept; the one that wrote last longest ago is forgotten.
    """

    def __init__(self, most: int = MOST_OWNERS) -> None:
        self._most = most
        self._texts: dict[str, EarlierTexts] = {}

    def of(self, owner: str) -> EarlierTexts:
        """Return an owner's texts, for a new one to be drafted from and added to."""
        texts = self._texts.pop(owner, None) or EarlierTexts()
        self._texts[owner] = texts
        if len(self._texts) > self._most:
            del self._texts[next(iter(self._texts))]
        return texts
