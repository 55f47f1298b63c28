"""What a chain answers to windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import torch
from torch import Tensor

from swarm.decoding.candidates import CandidateRow
from swarm.decoding.drafting.feature import TappedToken
from swarm.decoding.windows import Window
from swarm.outputs import Measured


@dataclass(frozen=True)
class ChainAnswer:
    """The chain's answer to a window, or to several in a row: a busy peer computed them together,
    or their answers were `joined`.

    Attributes:
        windows: that it answers, as they were sent; at least one.
        hidden: ``[count, hidden]``, final hidden states before the final norm.
        measured: from sending the last of the windows, by the answer to this one.
        at: when it arrived, by the session's clock; it may have waited for its reader since.
        candidates: what the last peer told of the predictions behind these tokens, in place of
            hidden states.
        taps: outputs of the tapped layers that became whole since the last answer: of these tokens
            as a rule, and of some before or behind them.
    """

    windows: tuple[Window, ...]
    hidden: Tensor
    measured: Measured
    at: float
    candidates: tuple[CandidateRow, ...] = ()
    taps: tuple[TappedToken, ...] = ()

    @classmethod
    def joined(cls, answers: "Sequence[ChainAnswer]") -> "ChainAnswer":
        """Return one answer for some that came one after the other, in one epoch."""
        if len(answers) == 1:
            return answers[0]
        return replace(
            answers[-1],
            windows=tuple(chain.from_iterable(each.windows for each in answers)),
            hidden=torch.cat([each.hidden for each in answers]),
            candidates=tuple(chain.from_iterable(each.candidates for each in answers)),
            taps=tuple(chain.from_iterable(each.taps for each in answers)),
        )

    @property
    def count(self) -> int:
        """How many tokens are answered."""
        return sum(window.tail for window in self.windows)

    @property
    def epoch(self) -> int:
        return self.windows[-1].epoch

    @property
    def first(self) -> int:
        """The serial of the first token that it answers."""
        return self.windows[0].first

    @property
    def last(self) -> int:
        """The serial of the last token that it answers."""
        return self.windows[-1].first + len(self.windows[-1].tokens) - 1

    @property
    def rows(self) -> Iterator[tuple[Window, Tensor | Sequence[CandidateRow]]]:
        """Each window with its own part of ``hidden``: ``[window.tail, hidden]``, or of the
        candidates; empty if nothing was asked of it."""
        if self.candidates:
            ends = list(accumulate(window.tail for window in self.windows))
            starts = [0, *ends]
            told = [self.candidates[slice(*each)] for each in zip(starts, ends, strict=False)]
            return zip(self.windows, told, strict=True)
        parts = torch.split(self.hidden, [window.tail for window in self.windows])
        return zip(self.windows, parts, strict=True)
