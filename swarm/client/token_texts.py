"""The texts of a vocabulary's tokens, and which of them go beyond a marker."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

BLANKS = " \t\r\n"  # the white space of JSON


def is_blank(text: str) -> bool:
    """Tell whether a text is nothing but white space, and some."""
    return bool(text) and not text.strip(BLANKS)


class TokenTexts:
    """The texts of all tokens. Any thread may use it.

    Args:
        spelled: the text of each token, control tokens included; others have none.
        encode: returns the tokens of a text.
        vocabulary: the number of tokens.

    Attributes:
        all: the text of each token.
        blank: the tokens that are nothing but white space, as `of` returns them.
    """

    def __init__(
        self, spelled: Sequence[str], encode: Callable[[str], Sequence[int]], vocabulary: int
    ) -> None:
        self._encode = encode
        self.vocabulary = vocabulary
        self.all = (*spelled[:vocabulary], *[""] * (vocabulary - len(spelled)))
        self.blank = self.of(token for token, text in enumerate(self.all) if is_blank(text))
        self._paths: dict[str, tuple[int, ...]] = {}
        self._beyond: dict[tuple[str, str], Tensor | None] = {}

    def of(self, tokens: Iterable[int]) -> Tensor:
        """Return some tokens as bool ``[vocabulary]``."""
        chosen = torch.zeros(self.vocabulary, dtype=torch.bool)
        chosen[sorted(token for token in tokens if token < self.vocabulary)] = True
        return chosen

    def path(self, marker: str) -> tuple[int, ...]:
        """Return the tokens as which a model writes a marker."""
        if marker not in self._paths:
            self._paths[marker] = tuple(self._encode(marker))
        return self._paths[marker]

    def beyond(self, text: str, marker: str) -> Tensor | None:
        """Return the tokens that complete a marker and go on with more than white space.

        What follows a marker has to begin with a token of its own. Return None if there are none.

        Args:
            text: before the token.
        """
        begun = [marker[:size] for size in range(len(marker)) if text.endswith(marker[:size])]
        found = [self._completing(marker, each) for each in begun]
        some = [tokens for tokens in found if tokens is not None]
        return torch.stack(some).any(0) if some else None

    def _completing(self, marker: str, begun: str) -> Tensor | None:
        key = (marker, begun)
        if key not in self._beyond:
            tokens = [
                token
                for token, text in enumerate(self.all)
                if _goes_beyond(text, marker[len(begun) :], anywhere=not begun)
            ]
            self._beyond[key] = self.of(tokens) if tokens else None
        return self._beyond[key]


def _goes_beyond(text: str, rest: str, anywhere: bool) -> bool:
    at = text.find(rest) if anywhere else 0 if text.startswith(rest) else -1
    return at >= 0 and bool(text[at + len(rest) :].strip(BLANKS))
