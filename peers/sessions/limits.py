"""How large one session may become, and how long it may take."""

from dataclasses import dataclass

REROUTE_PATIENCE_S = 60.0  # for a client to find another next peer
MAX_REROUTES = 256  # of one session, mirrors included: each makes us send everything that is kept
IDLE_TIMEOUT_S = 300.0  # a session that is silent for this long gives its cache back
LONGEST_LIFE_S = 3600.0  # of a session; its client may open it again, here or elsewhere, and replay


@dataclass(frozen=True)
class SessionLimits:
    """The limits of one session.

    Attributes:
        max_positions: the model's context; None if the model sets no limit.
        idle_timeout_s: without a message from the client or the peer before.
        reroute_patience_s: without a next peer.
        lifetime_s: from its opening.
        max_reroutes: mirrors included.
    """

    max_positions: int | None = None
    idle_timeout_s: float = IDLE_TIMEOUT_S
    reroute_patience_s: float = REROUTE_PATIENCE_S
    lifetime_s: float = LONGEST_LIFE_S
    max_reroutes: int = MAX_REROUTES
