"""The network is there, but does not serve this now."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swarm.errors.bases import ExitCode, SwarmError, SwarmUnavailable

if TYPE_CHECKING:
    from swarm.outputs import Generation
    from swarm.wire.faults import FaultCode


def _argument(model: str) -> str:
    """Return how a command names a model: the name of a folder or a file is not where it lies."""
    return model if "/" in model or model.startswith("demo-") else "MODEL"


@dataclass(eq=False)
class MissingLayers(SwarmUnavailable):
    """No chain of the known peers covers the model.

    Attributes:
        gaps: the spans ``[first, last)`` that no peer serves.
        peers: how many peers answer.
        expected: the directory names peers for the missing layers, which do not answer or are still
            loading: it may be worth while to wait.
        head: the peer of the last layer has to hold the model's head, too.
    """

    api_code = "missing_layers"

    model: str
    gaps: tuple[tuple[int, int], ...]
    model_layers: int
    peers: int
    expected: bool = False
    head: bool = False

    def __str__(self) -> str:
        last = self.model_layers - 1, self.model_layers
        given = _argument(self.model)
        if self.head and self.gaps == (last,):
            return (
                f"no peer that answers serves the last layer of {self.model} and holds its LM head,"
                f" which this client lacks; start one with `swarm-peer join {given} --layers"
                f" {last[0]}:{last[1]} --head`, or have the client hold the head itself"
                " (--head local)"
            )
        if not self.peers and self.gaps == ((0, self.model_layers),):
            return (
                f"no peer serves {self.model}; start one with `swarm-peer join {given}"
                f" --layers 0:{self.model_layers}`"
            )
        spans = [f"{first}:{last}" for first, last in self.gaps]
        answering = "1 peer answers" if self.peers == 1 else f"{self.peers} peers answer"
        return (
            f"no peer serves layers {', '.join(spans)} of {self.model} (it has {self.model_layers};"
            f" {answering}); start a peer with `swarm-peer join {given} --layers {spans[0]}`"
        )


@dataclass(eq=False)
class WrongWeights(SwarmUnavailable):
    """The swarm serves a model of this name, but other weights: the fingerprints `theirs`."""

    api_code = "wrong_weights"

    model: str
    ours: str
    theirs: tuple[str, ...]

    def __str__(self) -> str:
        theirs = ", ".join(fingerprint[:12] for fingerprint in self.theirs)
        return (
            f"the swarm serves {self.model} with other weights than yours (fingerprint {theirs},"
            f" yours is {self.ours[:12]}); use the same model folder or revision as its peers"
        )


@dataclass(eq=False)
class OtherQuantization(SwarmUnavailable):
    """The swarm serves these weights, but stored another way: in those of `served`."""

    api_code = "wrong_weights"

    model: str
    asked: str
    served: tuple[str, ...]

    def __str__(self) -> str:
        asked, *served = (
            "as they are" if each == "none" else f"in {each}" for each in (self.asked, *self.served)
        )
        return (
            f"the swarm serves the weights of {self.model} not {asked}, but {' and '.join(served)};"
            f" if other texts will do, ask for that: --quantization {self.served[0]}"
        )


@dataclass(eq=False)
class ChainBroken(SwarmUnavailable):
    """A peer of the chain failed. `code` is what it reported itself; None if it reported nothing.

    Fields: `layers` are those that it served: ``(first, last)``, without the last.
    """

    peer_id: str
    layers: tuple[int, int]
    why: str
    code: "FaultCode | None" = None

    @property
    def is_failure(self) -> bool:
        """Whether the peer itself is out of order."""
        return self.code is None or self.code.is_failure

    @property
    def is_news(self) -> bool:
        """Whether the peer is not as its record says."""
        return self.code is not None and self.code.is_news

    def __str__(self) -> str:
        first, last = self.layers
        return (
            f"the peer ...{self.peer_id[-8:]} (layers {first}:{last}) failed: {self.why}; "
            "run the command again, another route will be chosen if there is one"
        )


@dataclass(eq=False)
class ChainSilent(SwarmUnavailable):
    """No answer came for much longer than a loop takes, and no peer reported a failure."""

    seconds: float

    def __str__(self) -> str:
        return f"the chain has not answered for {self.seconds:.1f} s; run the command again"


@dataclass(eq=False)
class SwarmIncomplete(SwarmUnavailable):
    """No peers can take the place of those that failed. `generation` is the text until then."""

    api_code = "swarm_incomplete"

    missing: str
    patience_s: float
    generation: "Generation | None" = field(default=None, init=False)  # once it is summed up

    @property
    def problem(self) -> str:
        """What happened, without what to do about it."""
        return (
            f"peers have failed and no others took their place within {self.patience_s:g} s"
            f" ({self.missing})"
        )

    def __str__(self) -> str:
        return (
            f"{self.problem}; go on later with the prompt and all tokens so far as the prompt, and"
            " the same seed"
        )


@dataclass(eq=False)
class BatchFailed(SwarmUnavailable):
    """Some generations of a batch failed, each for its own reason.

    Attributes:
        results: in the order of the prompts; None for those that failed.
        errors: why they failed, by their places in the batch.
    """

    exit_code = ExitCode.FAILED  # the reasons may be of any kind

    results: "tuple[Generation | None, ...]"
    errors: Mapping[int, SwarmError]

    def __str__(self) -> str:
        first = min(self.errors)
        return (
            f"{len(self.errors)} of {len(self.results)} generations failed, that of prompt {first}"
            f" because {self.errors[first]}; `results` holds the others, `errors` says why by place"
        )
