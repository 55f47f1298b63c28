"""Why the audit of a text came to no comparison: it then proves nothing of any peer."""

import enum


class Reason(str, enum.Enum):
    """Why an audit failed: the value is for programs, `in_words` for people."""

    NO_OTHERS = "no_other_peers"
    LEFT = "peers_left"
    BANNED = "peer_banned"
    BUSY = "busy"
    BROKEN = "peers_failed"
    SLOW = "too_slow"
    QUEUE = "too_many_waiting"
    INTERNAL = "internal"

    @property
    def in_words(self) -> str:
        """The reason in words, to continue a sentence."""
        return _IN_WORDS[self]


_IN_WORDS = {
    Reason.NO_OTHERS: "no other peers serve these layers",
    Reason.LEFT: "peers that wrote it have left",
    Reason.BANNED: "a peer that wrote it is banned by now",
    Reason.BUSY: "peers had no room",
    Reason.BROKEN: "peers failed meanwhile",
    Reason.SLOW: "peers took too long",
    Reason.QUEUE: "too many texts waited",
    Reason.INTERNAL: "a fault of this program; please report it",
}


class Unaudited(Exception):
    """An audit that came to no comparison."""

    def __init__(self, reason: Reason, why: str = "") -> None:
        super().__init__(reason, why)
        self.reason = reason
        self.why = why

    def __str__(self) -> str:
        return self.why or self.reason.in_words
