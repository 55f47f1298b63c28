"""Why a model cannot be used now, in one sentence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from swarm.network.dht.lookup import ModelEntry

FINGERPRINT_CHARS = 12  # that are shown of one


class Seen(Protocol):
    """A peer as a client sees it; it does not answer if `rtt_ms` is None."""

    @property
    def layers(self) -> tuple[int, int]: ...
    @property
    def state(self) -> str: ...
    @property
    def rtt_ms(self) -> float | None: ...


@dataclass(frozen=True)
class Elsewhere:
    """The same model with other weights, or these weights stored another way.

    Attributes:
        fingerprint: of what is served instead.
        peers: how many serve it, in words.
        quantization: how these weights are stored there; None if they are other weights.
    """

    fingerprint: str
    peers: str
    quantization: str | None = None

    def __str__(self) -> str:
        who = f"{self.peers} {'serves' if self.peers == '1 peer' else 'serve'}"
        if self.quantization is None:
            shown = self.fingerprint[:FINGERPRINT_CHARS]
            return f"{who} other weights of that name (fingerprint {shown})"
        way = "as they are" if self.quantization == "none" else f"in {self.quantization}"
        return f"{who} these weights {way} (--quantization {self.quantization})"


# Why no peer can be used for a layer that one serves: the most hopeful reason of its peers first.
_REASONS: Mapping[str, Callable[[Seen], bool]] = {
    "are being loaded by {peers}": lambda peer: peer.state == "joining" and peer.rtt_ms is not None,
    "are served only by {peers} that cannot be reached": lambda peer: peer.rtt_ms is None,
    "are served only by {peers} on the way out": lambda peer: True,
}


def reason(
    model: str,
    model_layers: int,
    peers: Sequence[Seen],
    missing: Sequence[tuple[int, int]],
    elsewhere: Sequence[Elsewhere] = (),
) -> str:
    """Return the sentence; it is empty if no layer is missing.

    Args:
        missing: the spans `[a, b)` that no peer serves now.
        elsewhere: what is served instead of the requested weights.
    """
    if not missing:
        return ""
    layers = [layer for first, last in missing for layer in range(first, last)]
    why = {layer: _why(layer, peers) for layer in layers}
    parts = []
    for phrase in [*_REASONS, None]:
        spans = _spans([layer for layer in layers if why[layer] == phrase])
        if spans and phrase is None:
            everything = spans == [(0, model_layers)]
            parts.append(
                "no peer serves it" if everything else f"no peer serves layers {_listed(spans)}"
            )
        elif spans and phrase is not None:
            parts.append(
                f"layers {_listed(spans)} {phrase.format(peers=_count(peers, spans, phrase))}"
            )
    others = "".join(f"; {each}" for each in elsewhere)
    return f"{model} cannot be used now: {_joined(parts)}{others}."


def found_elsewhere(
    entry: ModelEntry, models: Sequence[ModelEntry], siblings: Mapping[str, str]
) -> tuple[Elsewhere, ...]:
    """Return the models of a network that are the same one under another fingerprint.

    Args:
        siblings: the same weights stored another way: fingerprint -> name of the quantization.
    """
    return tuple(
        Elsewhere(other.fingerprint, other.crowd, siblings.get(other.fingerprint))
        for other in models
        if other.fingerprint != entry.fingerprint
        and (other.model == entry.model or other.fingerprint in siblings)
    )


def unserved(peers: Sequence[Seen], missing: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return those of the missing layers that no peer has promised to serve, either."""
    return _spans(
        [layer for a, b in missing for layer in range(a, b) if _why(layer, peers) is None]
    )


def _why(layer: int, peers: Sequence[Seen]) -> str | None:
    here = [peer for peer in peers if peer.layers[0] <= layer < peer.layers[1]]
    return next((phrase for phrase, holds in _REASONS.items() if any(map(holds, here))), None)


def _count(peers: Sequence[Seen], spans: Sequence[tuple[int, int]], phrase: str) -> str:
    """Return the number of peers that a reason is about, in words."""
    concerned = [
        peer
        for peer in peers
        if _REASONS[phrase](peer)
        and any(peer.layers[0] < b and a < peer.layers[1] for a, b in spans)
    ]
    return "1 peer" if len(concerned) == 1 else f"{len(concerned)} peers"


def _spans(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Return sorted layers as spans `[a, b)`."""
    runs = (list(run) for _, run in groupby(enumerate(layers), lambda each: each[1] - each[0]))
    return [(run[0][1], run[-1][1] + 1) for run in runs]


def _listed(spans: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{a}:{b}" for a, b in spans)


def _joined(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
