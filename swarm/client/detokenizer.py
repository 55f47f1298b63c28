"""Tokens to text, piece by piece, up to a stop string."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from transformers import PreTrainedTokenizerBase

CONTEXT = 8  # tokens: enough that no decoder takes the first new one for the beginning of a text
ANCHOR_SEARCH = 256  # tokens of a context among which one that has text is looked for
REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character (yet)
SAMPLE = "日"  # three bytes of UTF-8


class TextStream:
    """Turns token ids into text as they come.

    Special tokens have none, and a character appears when it is whole.

    All pieces and what `flush` gives add up to what the tokenizer makes of all ids at once, special
    tokens skipped and spaces not cleaned up. One thing is different on purpose. Where a vocabulary
    spells rare characters byte by byte, transformers gives up all characters around a broken one;
    here whole ones stay, as in SentencePiece itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: Sequence[int] = ()) -> None:
        """``context``: the ids before the first one, on which its spelling may depend."""
        self._tokenizer = tokenizer
        self._bytes = _byte_tokens(tokenizer)
        self._characters = _Characters(self._begun(context))
        self._ids = self._window(context)
        self._text = self._decode(self._ids)
        self._shown = len(self._text)  # characters of it that have appeared, or are the context's

    def push(self, token_id: int) -> str:
        """The text that became certain with this token, perhaps none."""
        if token_id in self._bytes.values:
            if not self._text:
                self._stand_on(self._bytes.anchor)
            return self._characters.push(self._bytes.values[token_id])
        after = self._decode([*self._ids, token_id])
        # a special token does not part bytes
        broken = self._characters.end() if after != self._text else ""
        return broken + self._advance(token_id, after)

    def flush(self) -> str:
        """At the end of the text, what was held back: the marks of a character that was not
        completed."""
        rest, self._shown = self._text[self._shown :], len(self._text)
        return self._characters.end() + rest

    def _advance(self, token_id: int, after: str) -> str:
        """Take one more token, with which the window reads ``after``."""
        # The mark at the end stands for bytes that may yet become a character; those before it
        # never will.
        doubtful = after.endswith(REPLACEMENT) and not self._bytes.values
        certain = max(self._shown, len(after) - doubtful)
        new, held = after[self._shown : certain], max(0, len(after) - certain)
        ids = [*self._ids, token_id]
        self._ids, self._text = ids, after
        if len(ids) > CONTEXT:
            self._stand_on(*ids[-CONTEXT:])
            if after and not self._text:  # tokens without a text: what follows them is no beginning
                self._stand_on(ids[0], *ids[1 - CONTEXT :])
        self._shown = len(self._text) - held
        return new

    def _stand_on(self, *ids: int) -> None:
        """Let the text go on behind these tokens, whose own text has appeared."""
        self._ids = list(ids)
        self._text = self._decode(self._ids)
        self._shown = len(self._text)

    def _window(self, context: Sequence[int]) -> list[int]:
        """The end of the context, as far as the spelling of what follows may depend on it."""
        ids = list(context[-CONTEXT:])
        if not self._decode(ids):
            earlier = reversed(context[-ANCHOR_SEARCH:-CONTEXT])
            ids = [*islice((each for each in earlier if self._decode([each, each])), 1), *ids]
        # A character that the window cuts would spoil its neighbours.
        return [self._bytes.anchor] if any(each in self._bytes.values for each in ids) else ids

    def _begun(self, context: Sequence[int]) -> bytes:
        """The bytes at the end of the context that may yet become a character, where tokens stand
        for bytes."""
        values = self._bytes.values
        for tokens in (context[-3:], context[-2:], context[-1:]):
            if tokens and all(token in values for token in tokens):
                given = bytes(values[token] for token in tokens)
                if not _decided(given):
                    return given
        return b""

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


class _Characters:
    """Bytes to characters, each as soon as it is whole.

    A byte that is part of none is a mark, as in SentencePiece.

    Args:
        given: the beginning of a character whose text belongs to what came before.
    """

    def __init__(self, given: bytes = b"") -> None:
        self._held, self._given = given, len(given)

    def push(self, byte: int) -> str:
        """The text that became certain with this byte."""
        self._held += bytes([byte])
        text = ""
        while size := _decided(self._held):
            text += self._take(size)
        return text

    def end(self) -> str:
        """The text of a character that will not be completed."""
        return "".join(self._take(1) for _ in range(len(self._held)))

    def _take(self, size: int) -> str:
        taken, self._held = self._held[:size], self._held[size:]
        if self._given > 0:
            self._given -= size
            return ""
        return taken.decode(errors="replace")


def _decided(held: bytes) -> int:
    """How many of these bytes, up to the first character, can be decoded whatever follows; 0 if
    none."""
    try:
        held.decode()
    except UnicodeDecodeError as error:
        return 0 if error.reason == "unexpected end of data" else 1
    return len(held)


@dataclass(frozen=True)
class _ByteTokens:
    """Tokens that stand for one byte of a character each; ``anchor`` is one that is a character of
    its own."""

    values: Mapping[int, int] = field(default_factory=dict)
    anchor: int = 0


@lru_cache(maxsize=16)
def _byte_tokens(tokenizer: PreTrainedTokenizerBase) -> _ByteTokens:
    """Those of a vocabulary that falls back on bytes, as SentencePiece's do.

    Other vocabularies have none.

    Bytes below 0x80 are whole characters, and need no care.
    """
    find = getattr(tokenizer, "convert_tokens_to_ids", None)
    if find is None:  # it can only decode
        return _ByteTokens()
    ids = {byte: find(f"<0x{byte:02X}>") for byte in (*SAMPLE.encode(), ord("a"))}
    sample = [ids[byte] for byte in SAMPLE.encode()]
    if None in ids.values() or tokenizer.decode(sample).strip() != SAMPLE:
        return _ByteTokens()
    return _ByteTokens(
        {find(f"<0x{byte:02X}>"): byte for byte in range(0x80, 0x100)}, ids[ord("a")]
    )


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
            # The first to be complete counts, so that it does not matter how the text came in
            # pieces.
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = max((self._begun(stop) for stop in self._stops), default=0)
        shown, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return shown

    def flush(self) -> str:
        """What was held back, at the end of the text: no stop string came of it."""
        rest, self._held = self._held, ""
        return rest

    def _begun(self, stop: str) -> int:
        """Length of the longest end of what is held that ``stop`` begins with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
