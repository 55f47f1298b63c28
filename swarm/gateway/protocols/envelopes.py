"""Errors in the envelope of the protocol that a path belongs to."""

from swarm.gateway.errors import Envelope
from swarm.gateway.protocols import anthropic, ollama

ENVELOPES: dict[str, Envelope] = {
    "/v1/messages": anthropic.error_body,
    "/api/": ollama.error_body,
}


def envelope_of(path: str) -> Envelope | None:
    """Return the envelope of errors at a path; None is OpenAI's."""
    return next((found for begin, found in ENVELOPES.items() if path.startswith(begin)), None)
