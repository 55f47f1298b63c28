"""Tokens to text, piece by piece."""

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
