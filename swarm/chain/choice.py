"""Which of the chains that could be used is taken: the shortest loop, one dtype, few suspects, no
needless change.

Pure functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.audit.ledger import Ledger
from swarm.routing.chain import Stage, gaps
from swarm.routing.plan import Candidate, Route, plan, predict, runner_up
from swarm.routing.taps import WORTH, Tapping

STICKY = 1.15  # a chain that was good stays unless another one is better by this factor


@dataclass(frozen=True)
class Choice:
    """A chain, and the figures that its predicted loop is made of.

    Attributes:
        candidates: the chain's peers by peer id.
    """

    plan: Route
    candidates: Mapping[str, Candidate]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        peers = [
            {
                "peer_id": stage.peer_id,
                "layers": (stage.first, stage.last),
                "dtype": self.candidates[stage.peer_id].dtype,
                **_figures(self.candidates[stage.peer_id]),
            }
            for stage in self.plan.stages
        ]
        return {"loop_ms": self.plan.loop_ms, "peers": peers}


def _figures(candidate: Candidate) -> dict[str, float]:
    return {
        "rtt_ms": candidate.rtt_ms,
        "queue_ms": candidate.fixed_ms,
        "layer_ms": candidate.layer_ms,
    }


def best_two(candidates: Sequence[Candidate], layers: int) -> list[Choice]:
    """Return the chain with the shortest loop and, if there is one, the best chain that lacks one
    of its peers.

    Raises:
        MissingLayers: if the candidates leave a gap.
    """
    by_id = {candidate.peer_id: candidate for candidate in candidates}
    best = plan(candidates, layers)
    return [
        Choice(each, {stage.peer_id: by_id[stage.peer_id] for stage in each.stages})
        for each in (best, runner_up(best, candidates, layers))
        if each is not None
    ]


def choose(
    candidates: Sequence[Candidate],
    layers: int,
    last: Route | None,
    ledger: Ledger,
    tapping: Tapping | None = None,
) -> Route:
    """Return the chain to use.

    It costs least, as `plan` reckons, or is the ``last`` one if that is nearly as good. Where
    others serve their layers, it is without the worse ones of those who accuse each other, and has
    one suspect at most: then the next audit tells whether that one lied.

    Args:
        tapping: outputs of layers that are to be told. A chain that tells them is taken, unless it
            costs more than `WORTH` times as much as one that does not.

    Raises:
        MissingLayers: if the candidates leave a gap.
    """
    for worse in ledger.worse:
        candidates = _without(worse, candidates, layers)
    while True:
        found = _stay(last, _best(candidates, layers, tapping), candidates, tapping)
        chosen = {stage.peer_id for stage in found.stages}
        doubtful = [peer_id for peer_id in ledger.suspects if peer_id in chosen][:-1]
        fewer = next(
            (c for each in doubtful if (c := _without(each, candidates, layers)) != candidates),
            None,
        )
        if fewer is None:
            return found
        candidates = fewer


def replacement(candidates: Sequence[Candidate], layers: int, dtype: str | None) -> Route:
    """Return the chain that takes over the layers of peers that failed.

    Args:
        dtype: that these computed in; None if they differed, or where it does not matter. Peers of
            this dtype alone are taken if they serve all layers, however fast others are: then the
            text stays the same.

    Raises:
        MissingLayers: if the candidates leave a gap.
    """
    alike = [candidate for candidate in candidates if candidate.dtype == dtype]
    return plan(candidates if gaps(alike, layers) else alike, layers)


def second(candidates: Sequence[Candidate], layers: int, dtype: str) -> Route | None:
    """Return the one peer that is to stand by for another one; None if none serves all its layers.

    Args:
        dtype: that the other one computes in. A peer of this dtype is preferred, as a
            `replacement` is.
    """
    whole = [each for each in candidates if (each.first_layer, each.last_layer) == (0, layers)]
    alike = [each for each in whole if each.dtype == dtype]
    alone = (predict([Stage(each.peer_id, 0, layers)], [each]) for each in alike or whole)
    return min(filter(None, alone), key=lambda each: each.loop_ms, default=None)


def _best(candidates: Sequence[Candidate], layers: int, tapping: Tapping | None) -> Route:
    """The chain that costs least, or the one that does so among those that tell what is read."""
    best = plan(candidates, layers)
    if tapping is None or tapping.told_by(best.stages, candidates):
        return best
    telling = tapping.among(candidates)
    if gaps(telling, layers):
        return best
    found = plan(telling, layers)
    return found if found.cost_ms <= WORTH * best.cost_ms else best


def _stay(
    last: Route | None,
    found: Route,
    candidates: Sequence[Candidate],
    tapping: Tapping | None,
) -> Route:
    """The last chain, if its peers are still there and it is nearly as good as the one found."""
    again = predict(last.stages, candidates) if last else None
    if again is None or again.cost_ms > STICKY * found.cost_ms:
        return found
    if tapping is None or tapping.told_by(again.stages, candidates):
        return again
    return found if tapping.told_by(found.stages, candidates) else again


def _without(peer_id: str, candidates: Sequence[Candidate], layers: int) -> Sequence[Candidate]:
    """The other candidates, if they serve all layers; else all of them."""
    others = [candidate for candidate in candidates if candidate.peer_id != peer_id]
    return candidates if gaps(others, layers) else others
