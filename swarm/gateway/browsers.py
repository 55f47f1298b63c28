"""Keeps other people's web pages out.

Any page that someone opens can send requests to a server on their own machine. It cannot read the
answers, since no other origin is ever allowed to, but a request alone costs the swarm work. And a
page whose name is made to point to 127.0.0.1 once it is open (DNS rebinding) counts as the server's
own. So requests that change something must come from pages of our own or from no page at all, and
whoever has no key must have come by an address or a name that we know: the name of a rebinding page
is its owner's.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from swarm.gateway.errors import ForeignPage

LOCAL = "localhost"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def check_origin(method: str, host: str, origin: str | None) -> None:
    """Raises `ForeignPage` if a page of another origin asks for something to be done."""
    if origin is not None and method not in SAFE_METHODS and _netloc(origin) != host.lower():
        raise ForeignPage("Origin", origin[:200])


def check_host(host: str, names: Collection[str]) -> None:
    """Raises `ForeignPage` if a ``Host`` header is neither an IP address, nor localhost, nor one of
    ``names``."""
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
