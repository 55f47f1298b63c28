"""What a session begins with: nothing, or a copy of what its peers hold of another one."""

from collections.abc import Iterable

from swarm.wire.codec import has_field
from swarm.wire.forks import Fork
from swarm.wire.messages import Open, Opened


class SessionBeginning:
    """Notes on one session, without I/O.

    Attributes:
        fork: what the session is to begin with; None if with nothing, and once it is open: peers
            that join later are given the tokens.
        can_be_forked: all peers have said that others may begin with any beginning of this one.
    """

    def __init__(self) -> None:
        self.fork: Fork | None = None
        self.can_be_forked = True

    def opened(self, reply: Opened) -> bool:
        """Note a peer's answer; return whether the session begins there as it was asked to."""
        self.can_be_forked = self.can_be_forked and reply.forks
        return reply.held == (0 if self.fork is None else self.fork.count)


def know_forks(protocols: Iterable[int]) -> bool:
    """Return whether peers know how to begin a session with another one.

    Args:
        protocols: the highest version that each of them speaks, by its record.
    """
    return all(has_field(version, Open, "fork") for version in protocols)
