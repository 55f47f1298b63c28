"""How a rule is asked, and what it answers."""

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
        deficit_nats: what that costs: log p(choice) - log p(token), at least 0.
        reason: of a draft that missed the target's choice: why it was kept all the same, or why
            not.
        key: whether the reason is that the token is a key token.
        branch: the token was sent ahead as another choice of the draft's; the decoder knows.
        logits: the target's ``[vocabulary]`` at this position, shaped; the decoder knows.
        raw: the same before penalties and biases.
        hidden: ``[hidden]``, the target's last hidden state, from which these come, if it is kept.
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
        """*drafted* and kept, *relaxed* though the target would say otherwise, a *branch* that the
        draft had thought of too, *corrected* by the target, or the *target*'s own where nothing was
        drafted."""
        if self.kept:
            return "drafted" if self.choice is None else "relaxed"
        return "branch" if self.branch else "target" if self.drafted is None else "corrected"


class Rule(Protocol):
    """A way to judge drafted tokens. One object serves one generation."""

    @property
    def exact(self) -> bool:
        """Whether the text is distributed as the target's own would be."""
        ...

    def judge(
        self, logits: Tensor, history: Sequence[int], drafted: Sequence[Drafted]
    ) -> list[Decision]:
        """Decide position by position, up to and including the first one where no drafted token is
        kept.

        What is decided is committed: a rule may keep account of it.

        Args:
            logits: the target's ``[n, vocabulary]``, shaped; row ``i`` predicts position
                ``len(history) + i``.
            history: all tokens before, the prompt's included.
            drafted: the drafted tokens from there on, at most ``n``; where there is none, the
                target chooses freely.
        """
        ...
