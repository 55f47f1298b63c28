"""Control tokens: those by which a chat template says who speaks.

In what somebody says they are text.

transformers has ``sanitize_control_tokens`` for this, which is not used. It marks both ends of
every control token, so that templates no longer find what they take apart in a model's own answers
(``</think>``) as they would; it drops two characters of the private use area that icon fonts have;
and older versions take it for a variable of the template, and do nothing.
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
            f"the messages hold more than {MAX_BREAKS} control tokens, which is as many as are"
            " read; leave some out"
        )


class ControlTokens:
    """Control tokens of a chat template: the special tokens of its tokenizer, and other added
    tokens that it writes.

    In an assistant's messages, pairs of tags that are not special (``<think>`` and ``</think>``)
    stay what they are. They are part of the text that the model gave, templates look for them, and
    they never part two speakers.

    Make one with `control_tokens`. Any thread may use it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._tokenizer = tokenizer
        # Blanks are text wherever they stand, and what has one character cannot be broken.
        added = [
            token
            for token in tokenizer.added_tokens_decoder.values()
            if len(token.content.strip()) > 1
        ]
        special = {token.content for token in added if token.special}
        others = {token.content for token in added if not token.special}
        written = {token for token in others if token in template}
        self._said = _any_of(special | written)
        self._answered = _any_of(special | (written - set(_pairs(others))))
        (self._line,) = self._encode(["\n"])

    def broken(self, said: str, role: str) -> str:
        """What a message says, with a BREAK within every control token, as the template should get
        it."""
        control = self._answered if role == "assistant" else self._said
        said = said.replace(BREAK, "")
        # another may begin behind a break
        while found := [match.start() + 1 for match in control.finditer(said)]:
            said = BREAK.join(said[start:end] for start, end in pairwise([0, *found, len(said)]))
        return said

    def encode(self, chat: str) -> list[int]:
        """The token ids of what the template made of broken messages: the only control tokens are
        its own.

        Raises `TooManyControlTokens`.
        """
        first, *others = chat.split(BREAK)
        if len(others) > MAX_BREAKS:
            raise TooManyControlTokens
        # At the beginning of a text SentencePiece would add a space, so the others stand behind a
        # line's end.
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
    """Those of a tokenizer and its template. They may be thousands, so they are remembered."""
    return ControlTokens(tokenizer, template)


def _pairs(tokens: Collection[str]) -> Iterator[str]:
    """Those that open or close a tag of which both are there."""
    for token in tokens:
        if (tag := TAG.fullmatch(token)) and {f"<{tag[1]}>", f"</{tag[1]}>"} <= set(tokens):
            yield token


def _any_of(tokens: Collection[str]) -> re.Pattern[str]:
    """Finds the longest of some tokens.

    Takes the same time at each character, however many there are.
    """
    root: dict[str, Any] = {}
    for token in tokens:
        node = root
        for char in token:
            node = node.setdefault(char, {})
        node[""] = {}
    return re.compile(_written(root) or "(?!)")


def _written(node: dict[str, Any]) -> str:
    """A tree of characters as a regular expression; the empty one says that a token may end
    here."""
    further = [re.escape(char) + _written(below) for char, below in node.items() if char]
    if not further:
        return ""
    if len(further) == 1 and "" not in node:
        return further[0]
    return f"(?:{'|'.join(further)})" + ("?" if "" in node else "")
