"""Tokens to text, piece by piece, up to a stop string."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

CONTEXT = 8  # tokens: enough that no decoder takes the first new one for the beginning of a text
REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character (yet)


class TextStream:
    """Turns token ids into text as they come; special tokens have none, and a character appears when it is whole."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: Sequence[int] = ()) -> None:
        """``context``: the ids before the first one, on which its spelling may depend."""
        self._tokenizer = tokenizer
        self._ids = list(context[-CONTEXT:])
        self._shown = len(self._ids)  # the text of so many of them has appeared, or is the context's

    def push(self, token_id: int) -> str:
        """The text that became certain with this token, perhaps none."""
        self._ids.append(token_id)
        before, after = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        if after.endswith(REPLACEMENT):
            return ""
        del self._ids[:-CONTEXT]
        self._shown = len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


class StopStrings:
    """Lets text through up to the first of some strings, which may be spread over pieces.

    What may be the beginning of one is held back until it is clear that it is not.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What can be shown now: all that comes before a stop string, and nothing behind it."""
        if self.found:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.found = True
            # The first to be complete counts, so that it does not matter how the text came in pieces.
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = max((self._begun(stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back, at the end of the text: no stop string came of it."""
        rest, self._held = self._held, ""
        return rest

    def _begun(self, stop: str) -> int:
        """Length of the longest end of what is held that ``stop`` begins with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
