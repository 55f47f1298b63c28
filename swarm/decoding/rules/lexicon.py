"""Which tokens are key by what they are: a wrong one would change what is said, not how it is said.

The classes look at a token's text and, where that decides, at the text before it. Words for numbers
and negations are English; users add patterns of their own for other languages and domains.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

CONTEXT_TOKENS = 4  # enough to see how the last word or sentence ended
FENCE = "```"
REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character alone
NUMBER_WORD = re.compile(
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(thir|four|fif|six|seven|eigh|nine)teen|"
    r"(twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|billion|dozen|"
    r"half|third|quarter|twice|double|triple|first|second",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|except|unless|\w*n['\u2019]t",
    re.IGNORECASE,
)
_OPERATORS = frozenset("+-*/=<>%^&|~@#\\")
_QUOTES = frozenset("\"'`")
_IDENTIFIER = re.compile(r"\w*_\w*|[a-z]+[A-Z]\w*|\w+\.\w+|\w+\(|::")
_SENTENCE_END = re.compile(r"[.!?:][^\w\s]*\s*\Z|\A\s*\Z|\n\s*\Z")


class Lexicon:
    """Names the class of key tokens; every token is classified once and remembered.

    Args:
        decode: the text of a sequence of token ids, special tokens included.
        stop_ids: tokens that end the text.
        special_ids: tokens that are no text at all.
        patterns: classes of the user's own: name to regular expression; a token whose text matches
            anywhere is key.
        without: classes that are not to be key, to measure what they are good for.
        before: tokens behind which one is spelled as within a text, where many vocabularies begin a
            text without the space of its first word.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop_ids: frozenset[int] = frozenset(),
        special_ids: frozenset[int] = frozenset(),
        patterns: Mapping[str, re.Pattern[str]] | None = None,
        without: frozenset[str] = frozenset(),
        before: Sequence[int] = (),
    ) -> None:
        self.decode, self._stop_ids, self._special_ids = decode, stop_ids, special_ids
        self._before, self._before_chars = tuple(before), len(decode(before)) if before else 0
        self._patterns, self._without = dict(patterns or {}), without
        self._classes: dict[int, str] = {}

    def spell(self, token: int) -> str:
        """The text of one token within a text."""
        return self.decode([*self._before, token])[self._before_chars :]

    def key(self, token: int, history: Sequence[int]) -> str:
        """The class that makes ``token`` key behind ``history``, or "" if it is not key."""
        kind = self._classes.get(token)
        if kind is None:
            kind = self._classes[token] = self._classify(token)
        kind = kind or self._classify_in(token, history)
        return "" if kind in self._without else kind

    def _classify(self, token: int) -> str:
        if token in self._stop_ids:
            return "stop"
        if token in self._special_ids:
            return "structure"
        text = self.spell(token)
        for name, pattern in self._patterns.items():
            if pattern.search(text):
                return name
        return kind_of(text)

    def _classify_in(self, token: int, history: Sequence[int]) -> str:
        """Classes that depend on what stands before, as does the blank before a word in many
        vocabularies."""
        nearby = list(history[-CONTEXT_TOKENS:])
        before = self.decode(nearby)
        text = self.decode([*nearby, token])[len(before) :]
        if text[:1].isalpha() and before[-1:].isalpha():
            return "part of a word"
        if text.strip()[:1].isupper() and not _SENTENCE_END.search(before):
            return "name"
        return ""


def kind_of(text: str) -> str:
    """The class of a token by its text alone, or "" for an ordinary word or mark.

    The text of a token is a piece of text as a tokenizer cuts it, blanks before a word included.
    """
    stripped = text.strip()
    if not stripped:
        # indentation, line ends, and tokens that are no text
        return "" if text == " " else "structure"
    if any(char.isnumeric() for char in stripped) or NUMBER_WORD.fullmatch(stripped):
        return "number"
    if NEGATION.fullmatch(stripped):
        return "negation"
    if _IDENTIFIER.search(stripped):
        return "identifier"
    categories = {unicodedata.category(char) for char in stripped}
    if categories & {"Pi", "Pf"} or not _QUOTES.isdisjoint(stripped):
        return "quote"
    if categories & {"Sm", "Sc"} or not _OPERATORS.isdisjoint(stripped):
        return "operator"
    if categories & {"Ps", "Pe", "Cc", "Co", "Cn"} or "\n" in text or REPLACEMENT in text:
        return "structure"
    return ""


class Fences:
    """Knows whether the text stands inside a fenced block of code (Markdown's three backticks),
    reading every token once. One object serves one generation, whose history only grows."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode, self._read, self._inside, self._tail = decode, 0, False, ""

    def inside(self, history: Sequence[int]) -> bool:
        *whole, self._tail = (self._tail + self._decode(history[self._read :])).split(FENCE)
        self._tail = self._tail[-len(FENCE) + 1 :]  # a fence may be spread over tokens
        self._read = len(history)
        self._inside ^= len(whole) % 2 == 1
        return self._inside
