"""Whose frames each peer of a session accepts: what it was told, and what it has confirmed."""


class AcceptedSenders:
    """One client's notes about one session."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, ...]] = {}
        self._confirmed: dict[str, tuple[str, ...]] = {}

    def open(self, peer_id: str, previous: str | None) -> None:
        """Record that the session is opened on a peer, which accepts frames from the client and
        from the peer ``previous``."""
        self._told[peer_id] = () if previous is None else (previous,)
        self._confirmed[peer_id] = self._told[peer_id]

    def is_told(self, peer_id: str, senders: tuple[str, ...]) -> bool:
        """Return whether the last thing that a peer was told is to accept these senders."""
        return self._told.get(peer_id) == senders

    def telling(self, peer_id: str) -> None:
        """Record that a message to a peer is on its way out.

        Until `told` nothing is certain: if sending is interrupted, the peer is told again.
        """
        self._told.pop(peer_id, None)

    def told(self, peer_id: str, senders: tuple[str, ...]) -> None:
        """Record that a peer was told to accept these senders, and no others."""
        self._told[peer_id] = senders

    def confirmed(self, peer_id: str, senders: tuple[str, ...]) -> None:
        """Record that a peer accepts these senders."""
        self._confirmed[peer_id] = senders

    def accepts(self, peer_id: str, sender: str) -> bool:
        """Return whether a peer was told to accept a sender, and has confirmed it."""
        told = self._told.get(peer_id, ())
        return sender in told and sender in self._confirmed.get(peer_id, ())
