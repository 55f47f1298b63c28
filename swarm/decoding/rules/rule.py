"""The interface of a verification rule: logits and drafted tokens in, decisions out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal, Protocol

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.partial import PartialRow
from swarm.decoding.sampling import Sampling

Rows = Tensor | Sequence[Tensor | None]
"""The target's ``[vocabulary]`` at ``n`` positions, shaped; None where only its choice is known."""

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
        logits: the target's ``[vocabulary]`` at this position, shaped; None if only its choice was
            known. Set by the decoder.
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


class Needs(Enum):
    """What a rule has to know of the target's prediction at a position."""

    CHOICE = auto()  # which token the target chooses
    CHOICE_AND_MISSES = auto()  # that, and the logits where it is not the drafted token
    LOGITS = auto()


class Rule(Protocol):
    """A way to judge drafted tokens. One object serves one generation."""

    @property
    def sampling(self) -> Sampling:
        """How the target chooses."""
        ...

    @property
    def needs(self) -> Needs:
        """What `judge` is given of each position, at least."""
        ...

    @property
    def exact(self) -> bool:
        """Whether the text is distributed as the target's own would be."""
        ...

    @property
    def needs_drawn(self) -> bool:
        """Whether it judges the token that a source drew from its distribution, where there is one,
        and not the likeliest one (`DraftNode.proposal`)."""
        ...

    def judge(
        self,
        logits: Rows,
        history: Sequence[int],
        drafted: Sequence[Drafted],
        choices: Sequence[int | None] = (),
    ) -> list[Decision]:
        """Decide up to and including the first position where no drafted token is accepted.

        The decisions are committed: a rule may keep account of them.

        Args:
            logits: of the target; row ``i`` predicts position ``len(history) + i``.
            history: all tokens before, the prompt's included.
            drafted: the drafted tokens from there on, at most ``n``; behind the last, the target
                chooses freely.
            choices: the target's choice at each position, where it is known already.
        """
        ...

    def settles(self, row: PartialRow, history: Sequence[int], drafted: Drafted | None) -> bool:
        """Return whether `judge` certainly decides from this part of a prediction what it decides
        from the whole one.

        Args:
            history: all tokens before the predicted one.
            drafted: there, if anything was.
        """
        ...


def chosen(
    sampling: Sampling, row: Tensor | None, position: int, choices: Sequence[int | None], i: int
) -> int:
    """Return the ``i``-th of some choices; if it is not known, choose from its row."""
    if i < len(choices) and (choice := choices[i]) is not None:
        return choice
    assert row is not None  # a position has a choice or logits
    return sampling.choose(row[None], position)[0]
