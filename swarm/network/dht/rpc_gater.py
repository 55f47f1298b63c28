"""Checks every call before hivemind works on it, and every answer.

hivemind's own hook, the authorizer, knows neither caller nor callee, and the other services of a
node do not have it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgpack
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2

from swarm.config import Network
from swarm.network.dht.clock_skew import ClockSkew
from swarm.network.dht.eclipse import EclipseDetector
from swarm.network.dht.rpc_auth import RpcAuthenticator, RpcCall
from swarm.network.dht.storage import MAX_KEY_BYTES, MAX_RECORDS
from swarm.util.rates import ConcurrencyLimit, Rate, TokenBuckets

PING, STORE, FIND = (f"DHTProtocol.rpc_{name}" for name in ("ping", "store", "find"))
MAX_AT_ONCE = 512  # calls that are answered
MAX_AT_ONCE_A_CALLER = 64  # hivemind sends 16 a search
MAX_KEYS_TO_FIND = 16  # in one call, as hivemind sends them; each may bring `MAX_KEY_BYTES`
MAX_KEYS_TO_STORE = 1024  # in one call: a new node is told all that it should store
# Signatures cost time to check: 1 MiB of small records is half a second. A peer needs 10 KiB a
# minute for its own ones.
# from one caller in a minute; more, as above to a new node, comes out of what all share
STORE_BYTES = 64 << 10
SHARED_STORE_BYTES = 8 << 20
MAX_CALLS = 3000  # of one caller in a minute; a reader of a small swarm sends some hundred
# To one caller in a minute; then no more until the next one. A reader of a small swarm gets some 2
# MiB.
SENT_BYTES = 32 << 20
MAX_CALLERS = 100_000  # remembered
MAX_NEIGHBOURS = 20  # that one answer names for a key
_ANSWER_BYTES = MAX_KEY_BYTES + (16 << 10)  # for a key

log = logging.getLogger(__name__)


class CallRefused(ValueError):
    """A call is refused, or an answer is not believed."""


def node_id_of(peer: PeerID) -> DHTID:
    """Return the DHT id of a peer's node. It has only this one, and cannot choose another."""
    return DHTID.generate(peer.to_bytes())


class RpcGater:
    """Checks the calls of one node, in both directions.

    Attributes:
        eclipse: tells by how densely other nodes' ids stand whether a key is surrounded.
        clock: our clock beside those of other nodes.
        answered, refused: calls since the start.

    Args:
        clock: seconds, never turned back.
        time_of_day: seconds since 1970.
    """

    def __init__(
        self,
        network: Network,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self.eclipse = EclipseDetector()
        self.clock = ClockSkew(time_of_day)
        self.answered = 0
        self.refused = 0
        self._network = network
        self._auth = (
            RpcAuthenticator(network.key, frozenset({PING}), time_of_day)
            if network.key is not None
            else None
        )
        self._at_once = ConcurrencyLimit(MAX_AT_ONCE, MAX_AT_ONCE_A_CALLER)
        self._calls = TokenBuckets(Rate.a_minute(MAX_CALLS), clock, MAX_CALLERS)
        self._sent = TokenBuckets(Rate.a_minute(SENT_BYTES), clock, MAX_CALLERS)
        self._stores = TokenBuckets(Rate.a_minute(STORE_BYTES), clock, MAX_CALLERS)
        self._shared_stores = TokenBuckets(Rate.a_minute(SHARED_STORE_BYTES), clock)

    async def answer(
        self, call: RpcCall, request: bytes, parse: Callable[[bytes], Any], work: RpcHandler
    ) -> bytes:
        """Return the answer to a request, or raise ValueError if it is refused.

        Also raises what `work` raises.
        """
        try:
            answer = await self._answer(call, request, parse, work)
        except ValueError as error:
            self.refused += 1
            log.info("%s of %s was refused: %s", call.name, call.caller, error)
            raise
        self.answered += 1
        return answer

    async def _answer(
        self, call: RpcCall, request: bytes, parse: Callable[[bytes], Any], work: RpcHandler
    ) -> bytes:
        with self._turn(call.caller):
            nonce = b""
            if self._auth is not None:
                request, nonce = self._auth.open_request(call, request)
            if call.name in (STORE, FIND) and not self._network.admits(call.caller):
                raise CallRefused("this peer id is not on the list of members")
            if not self._calls.take(call.caller) or not self._sent.has(call.caller, 0):
                raise CallRefused("too many calls; try again in a minute")
            message = parse(request)
            self._check(call, message)
            answer: bytes = (await work(message)).SerializeToString()
            self._sent.draw(call.caller, len(answer))
            return answer if self._auth is None else self._auth.answer(call, nonce, answer)

    async def ask(
        self,
        call: RpcCall,
        message: Any,
        send: Callable[[bytes], Awaitable[bytes]],
        parse: Callable[[bytes], Any],
    ) -> Any:
        """Send a message and return the answer without the parts that cannot be believed.

        Raises ValueError if the answer as a whole cannot be.
        """
        request, nonce, asked_at = message.SerializeToString(), b"", self.clock.steady()
        if self._auth is not None:
            request, nonce = self._auth.request(call, request)
        answer = await send(request)
        if self._auth is not None:
            answer = self._auth.open_answer(call, nonce, answer)
        if call.name == PING:
            pong = parse(answer)
            self.clock.told(call.callee, pong.dht_time, asked_at)
            return pong
        if call.name != FIND:
            return parse(answer)
        if len(answer) > max(1, len(message.keys)) * _ANSWER_BYTES:
            raise CallRefused(f"an answer of {len(answer)} bytes")
        found = parse(answer)
        for key, result in zip(message.keys, found.results, strict=False):
            _sift(result)
            self.eclipse.saw(key, result.nearest_node_ids)
        return found

    @contextlib.contextmanager
    def _turn(self, caller: str) -> Iterator[None]:
        if not self._at_once.enter(caller):
            raise CallRefused("too many calls at once; try again")
        try:
            yield
        finally:
            self._at_once.leave(caller)

    def _check(self, call: RpcCall, message: Any) -> None:
        if isinstance(message, dht_pb2.FindRequest) and len(message.keys) > MAX_KEYS_TO_FIND:
            raise CallRefused(f"at most {MAX_KEYS_TO_FIND} keys are looked up in one call")
        if isinstance(message, dht_pb2.StoreRequest):
            size = message.ByteSize()
            if len(message.keys) > MAX_KEYS_TO_STORE:
                raise CallRefused(f"at most {MAX_KEYS_TO_STORE} keys are stored in one call")
            if not self._stores.take(call.caller, size) and not self._shared_stores.take(
                None, size
            ):
                raise CallRefused("too much to store; try again in a minute")


RpcHandler = Callable[[Any], Awaitable[Any]]


def _sift(result: dht_pb2.FindResult) -> None:
    """Drop values that are too large, and nodes whose ids are not those of their peers."""
    if len(result.value) > MAX_KEY_BYTES or _count(result) > MAX_RECORDS:
        result.type = dht_pb2.NOT_FOUND
        result.value = b""
    named = list(zip(result.nearest_node_ids, result.nearest_peer_ids, strict=False))[
        :MAX_NEIGHBOURS
    ]
    good = [
        (node_id, peer) for node_id, peer in named if node_id == node_id_of(PeerID(peer)).to_bytes()
    ]
    del result.nearest_node_ids[:], result.nearest_peer_ids[:]
    result.nearest_node_ids.extend(node_id for node_id, _ in good)
    result.nearest_peer_ids.extend(peer for _, peer in good)


def _count(result: dht_pb2.FindResult) -> float:
    """Return how many records a result holds, before hivemind makes objects of them.

    Infinity if it is malformed.
    """
    if result.type == dht_pb2.NOT_FOUND:
        return 0
    try:
        dictionary = msgpack.unpackb(result.value)
        records = msgpack.Unpacker()
        records.feed(dictionary.data)
        records.read_array_header()
        records.skip()
        records.skip()
        return int(records.read_array_header())
    except (ValueError, AttributeError, msgpack.UnpackException):
        return math.inf
