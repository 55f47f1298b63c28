"""Why a peer refuses or gives up: the codes that a `Fault` carries."""

import enum


class FaultCode(str, enum.Enum):
    """What went wrong, for programs."""

    BAD_MESSAGE = "bad_message"  # it broke the protocol
    NO_SESSION = "no_session"  # unknown or closed
    WRONG_MODEL = "wrong_model"  # other weights are served here
    WRONG_LAYERS = "wrong_layers"  # these layers are not served here
    BUSY = "busy"  # no room now; try later or elsewhere
    # hidden states that are no numbers came from the peer before; the session is still there
    NOT_FINITE = "not_finite"
    OUT_OF_ORDER = "out_of_order"  # the frame does not continue the stream
    # the next peer does not answer; a running session waits for a reroute
    NEXT_UNREACHABLE = "next_unreachable"
    NO_HISTORY = "no_history"  # outputs were not kept, so nothing can be replayed
    DRAINING = "draining"  # the peer is about to leave
    INTERNAL = "internal"  # the peer's own failure

    @property
    def is_failure(self) -> bool:
        """Whether the peer that reports it, or its next one, is out of order.

        With the other codes the peer is in order: it refuses, or we are at fault, or the session
        has just ended and the reason is on its way.
        """
        return self in (
            FaultCode.WRONG_MODEL,
            FaultCode.NOT_FINITE,
            FaultCode.OUT_OF_ORDER,
            FaultCode.NEXT_UNREACHABLE,
            FaultCode.INTERNAL,
        )

    @property
    def is_news(self) -> bool:
        """Whether the peer that reports it is not as its record says."""
        return self in (FaultCode.WRONG_LAYERS, FaultCode.DRAINING)

    @property
    def is_violation(self) -> bool:
        """Whether the sender of what the peer refuses broke the protocol."""
        return self in (FaultCode.BAD_MESSAGE, FaultCode.OUT_OF_ORDER, FaultCode.NOT_FINITE)
