"""Refuse requests of other people's web pages.

Any page in a user's browser can send requests to a server on the user's machine. The page cannot
read the answers, since no other origin is ever allowed to, but the request alone costs the swarm
work. And with DNS rebinding, where the name of an open page is made to point to 127.0.0.1, the page
counts as the server's own. Therefore:

- a request that changes something must come from a page of our own, or from no page at all;
- a request without an API key must name an address of this host, or a name of it that we know. A
  rebinding page names its owner's.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from swarm.gateway.errors import ForeignPage

LOCAL = "localhost"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def check_origin(method: str, host: str, origin: str | None) -> None:
    """Raise `ForeignPage` if a page of another origin sends a request that changes something."""
    if origin is not None and method not in SAFE_METHODS and _netloc(origin) != host.lower():
        raise ForeignPage("Origin", origin[:200])


def check_host(host: str, names: Collection[str]) -> None:
    """Raise `ForeignPage` if a ``Host`` header is no IP address, localhost, or one of ``names``."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        raise ForeignPage("Host", host[:200]) from None
    if name == LOCAL or name.endswith(f".{LOCAL}") or name in names:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise ForeignPage("Host", host[:200]) from None


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
