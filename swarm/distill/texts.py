"""A text to learn from: what the target was given, and what it wrote."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class WrittenText:
    """The tokens of a text; the first ``prompt`` of them were given to the target."""

    tokens: tuple[int, ...]
    prompt: int


@dataclass(frozen=True, eq=False)
class TargetText:
    """A text of which the target's states are known.

    Attributes:
        tokens: LongTensor ``[n]``.
        states: ``[n, hidden]`` in 16 bits, the raw outputs of the target's last layer, which come
            before its final norm.
        prompt: how many of the first tokens were given to the target.
    """

    tokens: Tensor
    states: Tensor
    prompt: int

    @property
    def written(self) -> int:
        """How many tokens the target has written."""
        return len(self.tokens) - self.prompt
