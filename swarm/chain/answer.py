"""What a chain answers to windows."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.chain.in_flight import Answered
from swarm.decoding.decoder import Window
from swarm.outputs import Measured
from swarm.routing.chain import Stage
from swarm.wire.messages import Result


@dataclass(frozen=True)
class Answer:
    """The chain's answer to a window, or to several in a row that a busy peer computed together."""

    epoch: int
    first: int  # serial
    count: int  # tokens
    hidden: Tensor  # [tail, hidden], final hidden states before the final norm
    measured: Measured  # from sending the last of the windows
    at: float  # when it arrived, by the session's clock; it may have waited for its reader since
    windows: tuple[Window, ...]  # that it answers, as they were sent

    @classmethod
    def of(
        cls,
        result: Result,
        hidden: Tensor,
        at: float,
        answered: Answered,
        stages: tuple[Stage, ...],
    ) -> "Answer":
        """Read a result, whose ``hidden`` states have been unpacked.

        Args:
            at: when it arrived.
            stages: of the chain. Times are credited to peers only if each of them has told its own.
        """
        told = stages if len(result.compute_ms) == len(stages) else ()
        measured = Measured(answered.loop_s * 1e3, result.compute_ms, result.queue_ms, told)
        return cls(result.epoch, result.first, result.count, hidden, measured, at, answered.windows)

    @property
    def rows(self) -> Iterator[tuple[Window, Tensor]]:
        """Each window with its own part of ``hidden``: ``[window.tail, hidden]``, empty if nothing
        was asked of it."""
        parts = torch.split(self.hidden, [window.tail for window in self.windows])
        return zip(self.windows, parts, strict=True)
