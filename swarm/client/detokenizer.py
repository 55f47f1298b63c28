"""Turn tokens into text, piece by piece, up to a stop string."""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from transformers import PreTrainedTokenizerBase

CONTEXT = 8  # tokens: enough that no decoder takes the first new one for the beginning of a text
ANCHOR_SEARCH = 256  # tokens of a context among which one with text is searched
REPLACEMENT = "\ufffd"  # a decoder's text for bytes that are no character (yet)
SAMPLE = "日"  # three bytes of UTF-8


class Detokenizer:
    """Turns token ids into text as they come.

    Special tokens have no text, but for those that are ``spelled``. A character appears when it is
    complete.

    All pieces and the result of `flush`, joined, are the tokenizer's text of all ids at once, with
    special tokens skipped and spaces not cleaned up. One thing differs on purpose: where a
    vocabulary spells rare characters byte by byte, transformers drops all characters around a
    broken one; here complete ones stay, as in SentencePiece itself.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: Sequence[int] = (),
        spelled: Collection[int] = (),
    ) -> None:
        """Start after ``context``: ids before the first one, on which its spelling may depend."""
        self._tokenizer = tokenizer
        self._spelled = spelled
        self._bytes = _byte_tokens(tokenizer)
        self._characters = _Characters(self._begun(context))
        self._ids = self._window(context)
        self._text = self._decode(self._ids)
        self._shown = len(self._text)  # characters that have appeared, or belong to the context

    def copy(self) -> "Detokenizer":
        """Return another one, which goes on from here on its own."""
        other = copy(self)
        other._characters = copy(self._characters)
        return other

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this token, perhaps none."""
        if token_id in self._spelled:
            before = self.flush()
            self._advance(token_id, self._decode([*self._ids, token_id]))
            return before + str(self._tokenizer.convert_ids_to_tokens(token_id))
        if token_id in self._bytes.values:
            if not self._text:
                self._stand_on(self._bytes.anchor)
            return self._characters.push(self._bytes.values[token_id])
        after = self._decode([*self._ids, token_id])
        # a special token does not separate bytes
        broken = self._characters.end() if after != self._text else ""
        return broken + self._advance(token_id, after)

    def flush(self) -> str:
        """Return the text that was held back, at the end: U+FFFD for an incomplete character."""
        rest, self._shown = self._text[self._shown :], len(self._text)
        return self._characters.end() + rest

    def _advance(self, token_id: int, after: str) -> str:
        """Take one more token, with which the window's text is ``after``."""
        # Only the last U+FFFD stands for bytes that may still become a character.
        doubtful = after.endswith(REPLACEMENT) and not self._bytes.values
        certain = max(self._shown, len(after) - doubtful)
        new = after[self._shown : certain]
        held = max(0, len(after) - certain)
        ids = [*self._ids, token_id]
        self._ids = ids
        self._text = after
        if len(ids) > CONTEXT:
            self._stand_on(*ids[-CONTEXT:])
            if after and not self._text:  # the next token is not the beginning of the text
                self._stand_on(ids[0], *ids[1 - CONTEXT :])
        self._shown = len(self._text) - held
        return new

    def _stand_on(self, *ids: int) -> None:
        """Let the window be these tokens, whose own text has appeared."""
        self._ids = list(ids)
        self._text = self._decode(self._ids)
        self._shown = len(self._text)

    def _window(self, context: Sequence[int]) -> list[int]:
        """Return the end of the context, as far as it may change the spelling of the next token."""
        ids = list(context[-CONTEXT:])
        if not self._decode(ids):
            earlier = reversed(context[-ANCHOR_SEARCH:-CONTEXT])
            ids = [*islice((each for each in earlier if self._decode([each, each])), 1), *ids]
        # A character that the window cuts would spoil its neighbours.
        return [self._bytes.anchor] if any(each in self._bytes.values for each in ids) else ids

    def _begun(self, context: Sequence[int]) -> bytes:
        """Return the bytes at the context's end that later ones may complete to a character."""
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
    """Turns bytes into characters, each as soon as it is complete.

    A byte that is part of no character becomes U+FFFD, as in SentencePiece.

    Args:
        given: the beginning of a character whose text belongs to the context.
    """

    def __init__(self, given: bytes = b"") -> None:
        self._held = given
        self._given = len(given)

    def push(self, byte: int) -> str:
        """Return the text that became certain with this byte."""
        self._held += bytes([byte])
        text = ""
        while size := _decided(self._held):
            text += self._take(size)
        return text

    def end(self) -> str:
        """Return the text of a character that will not be completed."""
        return "".join(self._take(1) for _ in range(len(self._held)))

    def _take(self, size: int) -> str:
        taken, self._held = self._held[:size], self._held[size:]
        if self._given > 0:
            self._given -= size
            return ""
        return taken.decode(errors="replace")


def _decided(held: bytes) -> int:
    """Return how many of these bytes can be decoded whatever follows, up to the first character.

    0 if none can.
    """
    try:
        held.decode()
    except UnicodeDecodeError as error:
        return 0 if error.reason == "unexpected end of data" else 1
    return len(held)


@dataclass(frozen=True)
class _ByteTokens:
    """Tokens that stand for one byte of a character each.

    ``anchor`` is a token that is a character by itself.
    """

    values: Mapping[int, int] = field(default_factory=dict)
    anchor: int = 0


@lru_cache(maxsize=16)
def _byte_tokens(tokenizer: PreTrainedTokenizerBase) -> _ByteTokens:
    """Return the byte tokens of a vocabulary that falls back on bytes, as SentencePiece's do.

    Other vocabularies have none. Bytes below 0x80 are complete characters, and need no care.
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
    """Passes text on up to the first stop string, which may be spread over pieces.

    A possible beginning of a stop string is held back until it is certain that it is not one.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return the text that can be shown now: all before a stop string, and nothing after it."""
        if self.found:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.found = True
            # The first complete one counts, so that the pieces of the text do not matter.
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = max((self._begun(stop) for stop in self._stops), default=0)
        end = len(self._held) - keep
        shown, self._held = self._held[:end], self._held[end:]
        return shown

    def flush(self) -> str:
        """Return the text that was held back, at the end: it was no stop string."""
        rest, self._held = self._held, ""
        return rest

    def _begun(self, stop: str) -> int:
        """Return the length of the longest end of the held text with which ``stop`` begins."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
