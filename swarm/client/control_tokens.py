"""Control tokens, with which a chat template marks the speakers; in a message they are text.

transformers has ``sanitize_control_tokens`` for this, which we do not use. It marks both ends of
every control token, so that templates no longer find the tags in a model's own answers
(``</think>``) that they take apart; it drops two characters of the private use area that icon fonts
have; and older versions take it for a variable of the template, and do nothing.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from swarm.errors import UsageError

BREAK = "\ufdd0"  # a noncharacter: no text has it, since Unicode keeps it for uses like this
MAX_BREAKS = 1024  # each is one more text to encode, so they bound the time that a chat takes
TAG = re.compile(r"</?(\w+)>")


class TooManyControlTokens(UsageError):
    """The messages of a chat hold more control tokens than `MAX_BREAKS`."""

    def __str__(self) -> str:
        return (
            f"the messages hold more than {MAX_BREAKS} control tokens, which is the maximum;"
            " leave some out"
        )


class ControlTokens:
    """The control tokens of a chat template.

    These are the special tokens of its tokenizer, and other added tokens that the template writes.

    In an assistant's messages, pairs of tags that are not special (``<think>`` and ``</think>``)
    stay as they are: they are part of the model's text, templates look for them, and they never
    separate two speakers.

    Make one with `control_tokens`. Any thread may use it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._tokenizer = tokenizer
        # Blanks are always text, and a single character cannot be broken.
        added = [
            token
            for token in tokenizer.added_tokens_decoder.values()
            if len(token.content.strip()) > 1
        ]
        special = {token.content for token in added if token.special}
        others = {token.content for token in added if not token.special}
        written = {token for token in others if token in template}
        self._in_messages = _any_of(special | written)
        self._in_answers = _any_of(special | (written - set(_pairs(others))))
        (self._line,) = self._encode(["\n"])

    def broken(self, text: str, role: str) -> str:
        """Return a message's text for the template, with a BREAK within every control token."""
        control = self._in_answers if role == "assistant" else self._in_messages
        text = text.replace(BREAK, "")
        # another control token may overlap one that was broken
        while found := [match.start() + 1 for match in control.finditer(text)]:
            text = BREAK.join(text[start:end] for start, end in pairwise([0, *found, len(text)]))
        return text

    def encode(self, chat: str) -> list[int]:
        """Return the token ids of a rendered chat: its only control tokens are the template's.

        Raise `TooManyControlTokens`.
        """
        first, *others = chat.split(BREAK)
        if len(others) > MAX_BREAKS:
            raise TooManyControlTokens
        # SentencePiece adds a space at the beginning of a text, so the others follow a newline.
        ids, *behind = self._encode([first, *(f"\n{part}" for part in others)])
        lead = len(self._line)
        for part, read in zip(others, behind, strict=True):
            ids += read[lead:] if read[:lead] == self._line else self._encode([part])[0]
        return ids

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False).input_ids
        return ids


@lru_cache(maxsize=16)
def control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> ControlTokens:
    """Return the control tokens of a tokenizer and its template, cached: there may be thousands."""
    return ControlTokens(tokenizer, template)


def _pairs(tokens: Collection[str]) -> Iterator[str]:
    """Yield the tokens that open or close a tag of which both are there."""
    for token in tokens:
        if (tag := TAG.fullmatch(token)) and {f"<{tag[1]}>", f"</{tag[1]}>"} <= set(tokens):
            yield token


def _any_of(tokens: Collection[str]) -> re.Pattern[str]:
    """Return a pattern that finds the longest of some tokens.

    Its time for each character does not depend on the number of tokens.
    """
    root: dict[str, Any] = {}
    for token in tokens:
        node = root
        for char in token:
            node = node.setdefault(char, {})
        node[""] = {}
    return re.compile(_written(root) or "(?!)")


def _written(node: dict[str, Any]) -> str:
    """Write a tree of characters as a regular expression; an empty key ends a token."""
    further = [re.escape(char) + _written(below) for char, below in node.items() if char]
    if not further:
        return ""
    if len(further) == 1 and "" not in node:
        return further[0]
    return f"(?:{'|'.join(further)})" + ("?" if "" in node else "")
