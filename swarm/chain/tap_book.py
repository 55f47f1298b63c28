"""Outputs of layers that the peers of one session tell: a book without I/O.

Each peer tells those of its own layers, in its own time. A token's outputs are *whole* when all
layers that the session taps have been told.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from swarm.chain.members import ChainPeer
from swarm.decoding.drafting.feature import TappedToken
from swarm.wire.taps import TapTerms

MAX_TOKENS = 1024  # whose outputs are told in part, or wait: the prompt's, and those in flight
MAX_BYTES = 1 << 26  # of their outputs: all of them for four layers of 4,096 dimensions


class TapBook:
    """Outputs come in by `add`, and leave by `take_whole`.

    What is not completed is forgotten, the oldest first: a drafter can do without.
    """

    def __init__(self) -> None:
        self._told: OrderedDict[int, dict[int, Tensor]] = OrderedDict()  # by serial and layer
        self._nbytes = 0  # of these outputs
        self._able: set[str] = set()  # ids of peers that tell outputs on request

    def opened(self, peer: ChainPeer, taps: bool) -> None:
        """Note whether a peer tells outputs on request."""
        if taps:
            self._able.add(peer.peer_id)

    def can(self, peer: ChainPeer) -> bool:
        """Return whether a peer tells outputs on request."""
        return peer.peer_id in self._able

    def add(self, first: int, layers: tuple[int, ...], outputs: Tensor) -> None:
        """Note outputs ``[tokens, layers, hidden]`` of some layers, from serial ``first`` on."""
        for serial, of_token in enumerate(outputs, first):
            told = self._told.setdefault(serial, {})
            # A copy: a view of one token's row would keep the outputs of the whole message.
            before = _nbytes(told)
            told |= zip(layers, of_token.clone(), strict=True)
            self._nbytes += _nbytes(told) - before
        while len(self._told) > MAX_TOKENS or self._nbytes > MAX_BYTES:
            _, told = self._told.popitem(last=False)
            self._nbytes -= _nbytes(told)

    def take_whole(self, terms: TapTerms | None) -> tuple[TappedToken, ...]:
        """Return the tokens of which all outputs are told, by their serials, and forget them."""
        if terms is None:
            return ()
        layers = set(terms.layers)
        whole = sorted(serial for serial, told in self._told.items() if told.keys() >= layers)
        taken = [(serial, self._told.pop(serial)) for serial in whole]
        self._nbytes -= sum(_nbytes(told) for _, told in taken)
        return tuple(
            TappedToken(serial, torch.stack([told[layer] for layer in terms.layers]))
            for serial, told in taken
        )

    def clear(self) -> None:
        """Forget everything: another text goes on."""
        self._told.clear()
        self._nbytes = 0


def _nbytes(told: dict[int, Tensor]) -> int:
    return sum(output.nbytes for output in told.values())
