"""Messages to bytes and back: ``[protocol version, kind, fields]`` in msgpack."""

from dataclasses import dataclass
from typing import Any

import msgpack
from pydantic import ValidationError

from swarm.errors import RemoteViolation
from swarm.wire import messages
from swarm.wire.fields import printable
from swarm.wire.messages import WireMessage
from swarm.wire.tensors import MAX_FRAME_TOKENS, MAX_TENSOR_BYTES

PROTOCOL_VERSION = 8
# offered when a link begins: see `swarm.wire.handshake`
SUPPORTED_VERSIONS = (4, 5, 6, 7, PROTOCOL_VERSION)
MAX_MESSAGE_BYTES = MAX_TENSOR_BYTES + 4096  # the largest frame and its header
MAX_ENTRIES = MAX_FRAME_TOKENS  # of one array or map: a frame's tokens are the longest
MAX_CONTAINERS = 8  # arrays and maps of one message: a byte on the wire can cost 64 in memory
MAX_REASON = 120  # characters: some of them are the sender's own words

# kinds whose classes were renamed: the wire keeps the old names
_KEPT_KINDS: dict[type[WireMessage], str] = {
    messages.AcceptFrom: "heed",
    messages.Accepting: "heeding",
    messages.Progress: "standing",
}
_KINDS: dict[str, type[WireMessage]] = {
    _KEPT_KINDS.get(kind, kind.__name__.lower()): kind
    for kind in (
        messages.Open,
        messages.Opened,
        messages.Frame,
        messages.Result,
        messages.Tapped,
        messages.Cancel,
        messages.Reroute,
        messages.Rerouted,
        messages.AcceptFrom,
        messages.Accepting,
        messages.Mirror,
        messages.Probe,
        messages.Progress,
        messages.ChangeTerms,
        messages.TermsChanged,
        messages.Refine,
        messages.Refined,
        messages.Close,
        messages.Ping,
        messages.Pong,
        messages.Behalf,
        messages.Fault,
    )
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# the version that a kind came with, where it is not the oldest
_SINCE: dict[type[WireMessage], int] = {
    messages.Behalf: 5,
    messages.ChangeTerms: 6,
    messages.TermsChanged: 6,
    messages.Refine: 6,
    messages.Refined: 6,
    messages.Tapped: 7,
}
# fields that came later than their message, and with which version
_FIELDS_SINCE: dict[type[WireMessage], dict[str, int]] = {
    messages.Progress: {"queued": 5, "batches": 5},
    messages.Open: {"head": 6, "taps": 7, "fork": 8},
    messages.Opened: {"taps": 7, "forks": 8, "held": 8},
    messages.Result: {"candidates": 6},
    messages.ChangeTerms: {"taps": 7},
}


@dataclass(eq=False)
class WireError(RemoteViolation):
    """Bytes from outside are not a valid message."""

    reason: str

    def __post_init__(self) -> None:
        self.reason = printable(self.reason[:MAX_REASON])
        super().__post_init__()

    def __str__(self) -> str:
        return f"not a valid message: {self.reason}"


def encode(message: WireMessage, version: int = PROTOCOL_VERSION) -> bytes:
    """Return the message as bytes of the link's version.

    Fields at their default, and those that the version does not have, are left out.
    """
    assert speaks(version, type(message)), f"version {version} has no {kind_of(message)}"
    since = _FIELDS_SINCE.get(type(message), {})
    later = {field for field, first in since.items() if version < first}
    fields = message.model_dump(exclude_defaults=True, exclude=later or None)
    data: bytes = msgpack.packb([version, kind_of(message), fields])
    return data


def kind_of(message: WireMessage) -> str:
    """Return the name that this kind of message has on the wire."""
    return _NAMES[type(message)]


def speaks(version: int, kind: type[WireMessage]) -> bool:
    """Return whether a version of the protocol has this kind of message."""
    return version >= _SINCE.get(kind, SUPPORTED_VERSIONS[0])


def has_field(version: int, kind: type[WireMessage], field: str) -> bool:
    """Return whether a message of this kind has this field in a version of the protocol."""
    return version >= _FIELDS_SINCE.get(kind, {}).get(field, SUPPORTED_VERSIONS[0])


def decode(data: bytes, version: int = PROTOCOL_VERSION) -> WireMessage:
    """Return the message in ``data``, of the link's version.

    Raises:
        WireError: for anything else than one valid message of that version.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"{len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    kind, fields = _envelope(data, version)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "message"
        raise WireError(f"{_NAMES[kind]}.{where}: {first['msg']}") from None


def unpack(data: bytes) -> tuple[int, str, dict[str, Any]]:
    """Return version, kind and fields of a message of any version, unchecked.

    Raises `WireError` if the bytes do not have this form.
    """
    count = _Containers()
    try:
        envelope = msgpack.unpackb(
            data,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
            max_ext_len=0,
            list_hook=count,
            object_hook=count,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"broken msgpack ({type(error).__name__})") from None
    if not isinstance(envelope, list) or len(envelope) != 3:
        raise WireError("no [version, kind, fields]")
    version, name, fields = envelope
    if type(version) is not int:  # isinstance would let True pass as version 1
        raise WireError("no protocol version")
    if not isinstance(name, str):
        raise WireError(f"unknown kind of type {type(name).__name__}")
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise WireError("fields are no map of names")
    return version, name, fields


def _envelope(data: bytes, spoken: int) -> tuple[type[WireMessage], dict[str, Any]]:
    version, name, fields = unpack(data)
    if version != spoken:
        raise WireError(
            f"protocol version {version}, this side speaks {spoken}; update the older side"
        )
    kind = _KINDS.get(name)
    if kind is None or not speaks(version, kind):
        raise WireError(f"unknown kind {name[:40]!r}")
    return kind, fields


class _Containers:
    """Stops the unpacking of a message that holds more arrays and maps than any of ours."""

    def __init__(self) -> None:
        self._seen = 0

    def __call__(self, container: Any) -> Any:
        self._seen += 1
        if self._seen > MAX_CONTAINERS:
            raise ValueError("too many containers")
        return container
