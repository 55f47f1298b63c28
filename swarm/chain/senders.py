"""Whose frames the peers of a session take: as they were told, and as they have confirmed."""


class Speakers:
    """Notes of one client about one session."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, ...]] = {}
        self._confirmed: dict[str, tuple[str, ...]] = {}

    def opens(self, peer_id: str, previous: str | None) -> None:
        """The session is opened on a peer that takes frames from one other peer, or from us
        alone."""
        self._told[peer_id] = self._confirmed[peer_id] = () if previous is None else (previous,)

    def knows(self, peer_id: str, speakers: tuple[str, ...]) -> bool:
        """Whether a peer was told, last of all, to take frames from these."""
        return self._told.get(peer_id) == speakers

    def telling(self, peer_id: str) -> None:
        """A peer is about to be told others: until it was, nothing is known, and it is told once
        more if need be."""
        self._told.pop(peer_id, None)

    def told(self, peer_id: str, speakers: tuple[str, ...]) -> None:
        """A peer has been told so."""
        self._told[peer_id] = speakers

    def confirms(self, peer_id: str, speakers: tuple[str, ...]) -> None:
        """A peer says that it does."""
        self._confirmed[peer_id] = speakers

    def hears(self, peer_id: str, speaker: str) -> bool:
        """Whether a peer takes the frames of another one, now and until it is told otherwise."""
        return speaker in self._told.get(peer_id, ()) and speaker in self._confirmed.get(
            peer_id, ()
        )
