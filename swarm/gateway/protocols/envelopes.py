"""Errors in the envelope of the protocol that a path belongs to."""

from swarm.gateway.errors import Envelope
from swarm.gateway.protocols import anthropic

ANTHROPIC = "/v1/messages"


def envelope_of(path: str) -> Envelope | None:
    """Return the envelope of errors at a path; None is OpenAI's."""
    if path.startswith(ANTHROPIC):
        return anthropic.error_body
    return None
