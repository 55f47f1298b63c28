"""JSON from strangers, read in bounded memory.

Two bytes of JSON, ``[]``, are sixty or more in memory: what a body holds is counted before anything
is made of it.
"""

import re
from typing import Any

from pydantic_core import from_json

from swarm.gateway.errors import BadRequest

MAX_VALUES = 2 << 20  # token ids of all prompts are the most
MAX_CONTAINERS = 64 << 10  # arrays and objects: messages and their parts are the most
MAX_STRINGS = 256 << 10  # names of fields included

_STRUCTURE = b'"[{,'
_OTHERS = bytes(set(range(256)) - set(_STRUCTURE))
_STRING = re.compile(rb'"[^"]*"')


def read_object(body: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises `BadRequest` for anything else, and for one of too many parts.
    """
    _count(body)
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"the body is no JSON that can be read ({error})") from None
    if not isinstance(fields, dict):
        raise BadRequest("the body has to be a JSON object")
    return fields


def _count(body: bytes) -> None:
    """Raises `BadRequest` for too many parts.

    Counts right in whatever is JSON; nothing else is read anyhow.
    """
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _OTHERS)
    strings = bare.count(b'"') // 2
    if strings > MAX_STRINGS:
        raise _too_many(strings, "strings", MAX_STRINGS)
    bare = _STRING.sub(b"", bare)
    for count, what, most in (
        (bare.count(b"[") + bare.count(b"{"), "arrays and objects", MAX_CONTAINERS),
        (bare.count(b","), "values", MAX_VALUES),
    ):
        if count > most:
            raise _too_many(count, what, most)


def _too_many(count: int, what: str, most: int) -> BadRequest:
    return BadRequest(
        f"the JSON of the body holds {count} {what}; at most {most} are read", status=413
    )
