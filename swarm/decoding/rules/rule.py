"""The interface of a verification rule: logits and drafted tokens in, decisions out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted

Origin = Literal["drafted", "relaxed", "branch", "corrected", "target"]


@dataclass(frozen=True)
class Decision:
    """The token that is committed at a position, and why.

    Attributes:
        drafted: the token that was drafted there, if any.
        choice: the target's own choice, if another token is committed in its place (a relaxed one).
        deficit_nats: the cost of that: log p(choice) - log p(token), at least 0.
        reason: why a drafted token that is not the target's choice was accepted, or was not.
        key: whether the reason is that the token is a key token.
        branch: the token had been sent ahead as another choice of the draft; set by the decoder.
        logits: the target's ``[vocabulary]`` at this position, shaped; set by the decoder.
        raw: the same before penalties and biases; set by the decoder.
        hidden: ``[hidden]``, the target's last hidden state behind these logits, if it is kept; set
            by the decoder.
    """

    token: int
    drafted: int | None
    choice: int | None = None
    deficit_nats: float = 0.0
    reason: str = ""
    key: bool = False
    branch: bool = False
    logits: Tensor | None = field(default=None, repr=False, compare=False)
    raw: Tensor | None = field(default=None, repr=False, compare=False)
    hidden: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def kept(self) -> bool:
        return self.token == self.drafted

    @property
    def origin(self) -> Origin:
        """Where the token comes from.

        - *drafted*: a drafted token that the target chose too.
        - *relaxed*: a drafted token that was accepted in place of the target's choice.
        - *branch*: the target's choice, which had been sent ahead as another choice of the draft.
        - *target*: the target's choice, where nothing was drafted (a bonus token).
        - *corrected*: the target's choice in place of a rejected token (a recovered token).
        """
        if self.kept:
            return "drafted" if self.choice is None else "relaxed"
        if self.branch:
            return "branch"
        return "target" if self.drafted is None else "corrected"


class Rule(Protocol):
    """A way to judge drafted tokens. One object serves one generation."""

    @property
    def exact(self) -> bool:
        """Whether the text is distributed as the target's own would be."""
        ...

    def judge(
        self, logits: Tensor, history: Sequence[int], drafted: Sequence[Drafted]
    ) -> list[Decision]:
        """Decide up to and including the first position where no drafted token is accepted.

        The decisions are committed: a rule may keep account of them.

        Args:
            logits: the target's ``[n, vocabulary]``, shaped; row ``i`` predicts position
                ``len(history) + i``.
            history: all tokens before, the prompt's included.
            drafted: the drafted tokens from there on, at most ``n``; behind the last, the target
                chooses freely.
        """
        ...
