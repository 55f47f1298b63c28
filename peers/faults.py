"""Faults that a session's client has to know: of this peer, of the next one, or its own."""

from swarm.wire.faults import FaultCode
from swarm.wire.fields import MAX_TEXT
from swarm.wire.messages import Fault, Open


class SessionFault(Exception):
    """A fault that ends a session where it is raised; its client is told.

    Attributes:
        peer: the id of another peer, if that one is to blame.
        retry_ms: when the client may try again, where that helps.
    """

    def __init__(
        self,
        code: FaultCode,
        text: str,
        peer: str | None = None,
        retry_ms: float | None = None,
    ) -> None:
        super().__init__(code, text, peer, retry_ms)
        self.code = code
        self.text = text
        self.peer = peer
        self.retry_ms = retry_ms

    def message(self, opening: Open) -> Fault:
        """Return the fault as its client gets it."""
        return Fault(
            code=self.code,
            text=self.text[:MAX_TEXT],
            session=opening.session,
            peer=self.peer,
            retry_ms=self.retry_ms,
        )
