"""Tokens to text, piece by piece."""

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase


class TextStream:
    """Turns token ids into text as they come; special tokens have none, and a character appears when it is whole."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: Sequence[int] = ()) -> None:
        """``context``: the ids before the first one, on which its spelling may depend."""
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(ids=list(context), skip_special_tokens=True)

    def push(self, token_id: int) -> str:
        """The text that became certain with this token, perhaps none."""
        return self._stream.step(self._backend, token_id) or ""
