"""MACs on the calls inside a private swarm, made with the network's key. No sockets.

The called node learns the caller's id from libp2p. The MAC covers both ids, so it is of no use to
another caller or at another node. It is accepted once within a minute; after that it is too old.
"""

from __future__ import annotations

import hmac
import secrets
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

# of a request, and of a clock that is ahead; nonces are remembered for twice that
MAX_AGE_S = 60.0
MAX_NONCES = 100_000  # remembered a minute; only members can add to them
NONCE_BYTES = 16
_MAC_BYTES = 32
_PURPOSE = b"swarm directory calls 1"  # the network's key proves membership elsewhere, too
_HEAD = struct.Struct(f">{NONCE_BYTES}sd{_MAC_BYTES}s")


class NotAuthenticated(ValueError):
    """The other side did not prove that it has the network's key, or proved it for another call."""


class RpcCall(NamedTuple):
    """One call: the name of the procedure, and the peer ids of caller and callee."""

    name: str
    caller: str
    callee: str


class RpcAuthenticator:
    """Seals (with a MAC) and opens the calls of one network's members.

    Args:
        timeless: names of calls that are accepted whatever the caller's clock, and that do no harm
            if they are replayed.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        key: bytes,
        timeless: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = hmac.digest(key, _PURPOSE, "sha256")
        self._timeless = timeless
        self._clock = clock
        self._seen: set[bytes] = set()
        self._seen_before: set[bytes] = set()
        self._turned_at = clock()

    def request(self, call: RpcCall, payload: bytes) -> tuple[bytes, bytes]:
        """Return the sealed request, and its nonce, with which the answer is opened."""
        nonce, now = secrets.token_bytes(NONCE_BYTES), self._clock()
        return _HEAD.pack(
            nonce, now, self._mac(b"request", call, nonce, now, payload)
        ) + payload, nonce

    def open_request(self, call: RpcCall, sealed: bytes) -> tuple[bytes, bytes]:
        """Return the payload and the nonce. Raises NotAuthenticated."""
        if len(sealed) < _HEAD.size:
            raise NotAuthenticated("this swarm is private")
        nonce, sent_at, mac = _HEAD.unpack_from(sealed)
        payload = sealed[_HEAD.size :]
        if not hmac.compare_digest(mac, self._mac(b"request", call, nonce, sent_at, payload)):
            raise NotAuthenticated("this swarm is private")
        if call.name not in self._timeless:
            self._check_new(nonce, sent_at)
        return payload, nonce

    def answer(self, call: RpcCall, nonce: bytes, payload: bytes) -> bytes:
        """Return the sealed answer to the request with this nonce."""
        return self._mac(b"answer", call, nonce, 0.0, payload) + payload

    def open_answer(self, call: RpcCall, nonce: bytes, sealed: bytes) -> bytes:
        """Return the payload. Raises NotAuthenticated."""
        payload = sealed[_MAC_BYTES:]
        if not hmac.compare_digest(
            sealed[:_MAC_BYTES], self._mac(b"answer", call, nonce, 0.0, payload)
        ):
            raise NotAuthenticated("the answer does not come from a member of this swarm")
        return payload

    def _check_new(self, nonce: bytes, sent_at: float) -> None:
        now = self._clock()
        if not abs(now - sent_at) <= MAX_AGE_S:
            raise NotAuthenticated("the call is too old, or the clock of its sender is wrong")
        if now - self._turned_at > 2 * MAX_AGE_S or now < self._turned_at:
            self._seen_before = self._seen
            self._seen = set()
            self._turned_at = now
        if nonce in self._seen or nonce in self._seen_before:
            raise NotAuthenticated("the call came before")
        if len(self._seen) >= MAX_NONCES:
            raise NotAuthenticated("too many calls; try again in a minute")
        self._seen.add(nonce)

    def _mac(
        self, kind: bytes, call: RpcCall, nonce: bytes, sent_at: float, payload: bytes
    ) -> bytes:
        parts = [
            kind,
            *(part.encode() for part in call),
            nonce,
            struct.pack(">d", sent_at),
            payload,
        ]
        return hmac.digest(
            self._key, b"".join(struct.pack(">I", len(part)) + part for part in parts), "sha256"
        )
