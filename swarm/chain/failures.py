"""How a chain fails: facts about a peer, a silence, or a gap that no peer fills."""

from swarm.errors import ExitCode, SwarmError
from swarm.outputs import Generation
from swarm.wire.messages import FaultCode

# A peer that says so is in order; perhaps it is we who are not. A session may just have ended, and
# why is on its way.
NO_FAILURE = frozenset(
    {
        *(FaultCode.NO_HISTORY, FaultCode.DRAINING, FaultCode.BUSY),
        *(FaultCode.WRONG_LAYERS, FaultCode.BAD_MESSAGE, FaultCode.NO_SESSION),
    }
)


class ChainBroken(SwarmError):
    """A peer of the chain failed. ``code`` is what it said itself, if it said anything."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(
        self, peer_id: str, layers: tuple[int, int], why: str, code: FaultCode | None = None
    ) -> None:
        super().__init__(peer_id, layers, why, code)
        self.peer_id, self.layers, self.why, self.code = peer_id, layers, why, code

    @property
    def is_failure(self) -> bool:
        """Whether the peer itself is out of order."""
        return self.code not in NO_FAILURE

    @property
    def is_news(self) -> bool:
        """Whether the peer is not as its record says."""
        return self.code in (FaultCode.WRONG_LAYERS, FaultCode.DRAINING)

    def __str__(self) -> str:
        first, last = self.layers
        return (
            f"the peer ...{self.peer_id[-8:]} (layers {first}:{last}) failed: {self.why}; "
            "run the command again, another route will be chosen if there is one"
        )


class Implausible(ChainBroken):
    """What the last peer answered cannot be an answer of the model: it, or one before it, computes
    something else."""


class ChainSilent(SwarmError):
    """No answer came for much longer than a loop takes, and nobody said that anything failed."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the chain has not answered for {self.seconds:.1f} s; run the command again"


class SwarmIncomplete(SwarmError):
    """No peers can take the place of those that failed; what was generated until then is kept."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, missing: str, patience_s: float) -> None:
        super().__init__(missing, patience_s)
        self.missing, self.patience_s = missing, patience_s
        self.generation: Generation | None = None  # what there is, once it is summed up

    @property
    def problem(self) -> str:
        """What happened, without what to do about it."""
        return (
            f"peers have failed and nobody took their place within {self.patience_s:g} s"
            f" ({self.missing})"
        )

    def __str__(self) -> str:
        return (
            f"{self.problem}; go on later with the prompt and all tokens so far as the prompt, and"
            " the same seed"
        )
