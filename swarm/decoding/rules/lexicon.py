"""Which tokens are key by their text: a wrong one would change a text's meaning, not its wording.

A class depends on a token's text and, where needed, on the text before it. Words for numbers and
negations are English; users add patterns for other languages and domains.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

CONTEXT_TOKENS = 4  # enough to show how the last word or sentence ended
FENCE = "```"
REPLACEMENT = "\ufffd"  # a decoder's output for bytes that are not a whole character
NUMBER_WORD = re.compile(
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"(thir|four|fif|six|seven|eigh|nine)teen|(twen|thir|for|fif|six|seven|eigh|nine)ty|"
    r"hundred|thousand|million|billion|dozen|"
    r"half|third|quarter|twice|double|triple|first|second",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|except|unless|"
    r"\w*n['\u2019]t",
    re.IGNORECASE,
)
_OPERATORS = frozenset("+-*/=<>%^&|~@#\\")
_QUOTES = frozenset("\"'`")
_IDENTIFIER = re.compile(r"\w*_\w*|[a-z]+[A-Z]\w*|\w+\.\w+|\w+\(|::")
_SENTENCE_END = re.compile(r"[.!?:][^\w\s]*\s*\Z|\A\s*\Z|\n\s*\Z")


class Lexicon:
    """Names the class of key tokens. Each token is classified once and remembered.

    Args:
        decode: returns the text of a sequence of token ids, special tokens included.
        stop_ids: tokens that end the text.
        special_ids: tokens without a text.
        patterns: the user's classes, name to regular expression: a token is key if a match is
            anywhere in its text.
        without: classes to treat as not key, to measure what they contribute.
        before: tokens put before a token to spell it as within a text: many vocabularies drop the
            space of a text's first word.
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
        self.decode = decode
        self._stop_ids = stop_ids
        self._special_ids = special_ids
        self._before = tuple(before)
        self._before_chars = len(decode(before)) if before else 0
        self._patterns = dict(patterns or {})
        self._without = without
        self._classes: dict[int, str] = {}

    def spell(self, token: int) -> str:
        """Return the text of one token within a text."""
        return self.decode([*self._before, token])[self._before_chars :]

    def key(self, token: int, history: Sequence[int]) -> str:
        """Return the class that makes ``token`` key behind ``history``, or "" if it is not key."""
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
        """Return the class of ``token`` that depends on the text before it, or "".

        In many vocabularies the space before a word does, too.
        """
        nearby = list(history[-CONTEXT_TOKENS:])
        before = self.decode(nearby)
        text = self.decode([*nearby, token])[len(before) :]
        if text[:1].isalpha() and before[-1:].isalpha():
            return "part of a word"
        if text.strip()[:1].isupper() and not _SENTENCE_END.search(before):
            return "name"
        return ""


def kind_of(text: str) -> str:
    """Return the class of a token by its text alone, or "" for an ordinary word or mark.

    ``text`` is a piece as a tokenizer cuts it, spaces before a word included.
    """
    stripped = text.strip()
    if not stripped:
        # Indentation, line ends, and tokens without a text.
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
    """Tracks whether a text's end is inside a fenced block of code (Markdown's three backticks).

    Reads every token once. One object serves one generation, whose history only grows.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._read = 0  # tokens
        self._inside = False
        self._tail = ""  # the last characters read

    def inside(self, history: Sequence[int]) -> bool:
        """Return whether the token behind ``history`` is code."""
        *whole, self._tail = (self._tail + self._decode(history[self._read :])).split(FENCE)
        self._tail = self._tail[-len(FENCE) + 1 :]  # a fence may be spread over tokens
        self._read = len(history)
        self._inside ^= len(whole) % 2 == 1
        return self._inside
