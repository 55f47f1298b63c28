"""Messages to bytes and back: ``[protocol version, kind, fields]`` in msgpack."""

from typing import Any

import msgpack
from pydantic import ValidationError

from swarm.errors import SwarmError
from swarm.wire import messages
from swarm.wire.messages import Message
from swarm.wire.tensors import MAX_TENSOR_BYTES

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = MAX_TENSOR_BYTES + 4096  # the largest frame and its header
MAX_CONTAINER = 1024  # entries of any array or map: more than a frame's tokens, far less than a flood

_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind
    for kind in (
        messages.Open,
        messages.Opened,
        messages.Frame,
        messages.Result,
        messages.Cancel,
        messages.Close,
        messages.Ping,
        messages.Pong,
        messages.Fault,
    )
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class WireError(SwarmError):
    """Bytes from outside that are no valid message."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"not a valid message: {self.reason}"


def encode(message: Message) -> bytes:
    """The message as bytes; fields at their default are left out."""
    fields = message.model_dump(exclude_defaults=True)
    data: bytes = msgpack.packb([PROTOCOL_VERSION, _NAMES[type(message)], fields])
    return data


def decode(data: bytes) -> Message:
    """The message in ``data``.

    Raises:
        WireError: for anything else than one valid message of our protocol version.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"{len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    kind, fields = _envelope(data)
    try:
        # Python mode with strict types; tuples and enums are the two shapes that msgpack cannot say.
        return kind.model_validate(_revive(kind, fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "message"
        raise WireError(f"{_NAMES[kind]}.{where}: {first['msg']}") from None


def _envelope(data: bytes) -> tuple[type[Message], dict[str, Any]]:
    try:
        envelope = msgpack.unpackb(
            data,
            max_array_len=MAX_CONTAINER,
            max_map_len=MAX_CONTAINER,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"broken msgpack ({type(error).__name__})") from None
    if not isinstance(envelope, list) or len(envelope) != 3:
        raise WireError("no [version, kind, fields]")
    version, name, fields = envelope
    if version != PROTOCOL_VERSION:
        raise WireError(f"protocol version {version!r:.20}, this side speaks {PROTOCOL_VERSION}; update the older side")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise WireError(f"unknown kind {name!r:.40}")
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise WireError("fields are no map of names")
    return kind, fields


def _revive(kind: type[Message], fields: dict[str, Any]) -> dict[str, Any]:
    """Lists become tuples and fault codes enums, which strict validation insists on."""
    revived = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    if kind is messages.Fault:
        codes = {code.value: code for code in messages.FaultCode}
        code = revived.get("code")
        revived["code"] = codes.get(code) if isinstance(code, str) else None
    return revived
