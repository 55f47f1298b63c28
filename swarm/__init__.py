"""What a client imports, and the language that clients and peers speak."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["SwarmClient", "__version__"]

if TYPE_CHECKING:
    from swarm.client import SwarmClient


def __getattr__(name: str) -> object:
    """`SwarmClient` comes with torch and transformers: it is imported when it is asked for."""
    if name == "SwarmClient":
        from swarm.client import SwarmClient

        return SwarmClient
    raise AttributeError(f"module 'swarm' has no attribute {name!r}")
