"""What a chain answers to the windows of one session, as its client reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from swarm.chain.terms import Terms
from swarm.decoding.windows import Window
from swarm.wire.messages import Result, Tapped
from swarm.wire.taps import LayerOutputs, TapTerms
from swarm.wire.tensors import WireTensor

SESSION = b"0" * 16
WIDTH = 4
TAPS = TapTerms(layers=(0, 1))
TERMS = Terms("0" * 32, max_tokens=64, hidden_size=WIDTH, taps=TAPS)


@dataclass(frozen=True)
class Sent:
    """A window on its way, and when it was sent."""

    window: Window
    at: float

    @property
    def count(self) -> int:
        return len(self.window.tokens)


def result(sent: Sequence[Sent]) -> Result:
    """What a chain answers that has computed these windows together; a row's values are the serial
    of its token."""
    serials = [
        serial
        for window in (each.window for each in sent)
        for serial in range(
            window.first + len(window.tokens) - window.tail, window.first + len(window.tokens)
        )
    ]
    rows = torch.tensor(serials, dtype=torch.float32).reshape(-1, 1).expand(-1, WIDTH)
    return Result(
        session=SESSION,
        epoch=sent[0].window.epoch,
        first=sent[0].window.first,
        count=sum(each.count for each in sent),
        hidden=WireTensor.pack(rows.contiguous()),
    )


def tapped(serial: int, layer: int) -> Tapped:
    (outputs,) = LayerOutputs.pack(torch.full((1, 1, WIDTH), float(layer)), float8=False)
    return Tapped(session=SESSION, first=serial, layers=(layer,), outputs=outputs)
