"""Parse untrusted JSON in bounded memory.

Two bytes of JSON, ``[]``, take sixty or more in memory, so the parts of a body are counted before
it is parsed.
"""

import re
from typing import Any

from pydantic_core import from_json

from swarm.gateway.errors import BadRequest

MAX_VALUES = 2 << 20  # token ids of all prompts are the most of them
MAX_CONTAINERS = 64 << 10  # arrays and objects: messages and their parts are the most of them
MAX_STRINGS = 256 << 10  # names of fields included

MAX_MENDED_BYTES = 4 << 20
# An escape, whole pairs of surrogates kept together; the group does not match a lone one.
_ESCAPE = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u[dD][89a-fA-F]).)"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}",
    re.DOTALL,
)
_STRUCTURE = b'"[{,'
_OTHERS = bytes(set(range(256)) - set(_STRUCTURE))
_STRING = re.compile(rb'"[^"]*"')


def read_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object.

    Raise `BadRequest` for anything else, and for an object of too many parts.
    """
    _check_size(body)
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        fields = _without_lone_surrogates(body)
        if fields is None:
            raise BadRequest(f"the body is not valid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise BadRequest("the body has to be a JSON object")
    return fields


def _without_lone_surrogates(body: bytes) -> Any:
    """Parse JSON with halves of characters as U+FFFD; return None if more is wrong.

    JavaScript writes such halves where a program has cut a string within an emoji.
    """
    if len(body) > MAX_MENDED_BYTES or b"\\u" not in body:
        return None
    mended = _ESCAPE.sub(lambda escape: escape[1] or b"\\ufffd", body)
    try:
        return from_json(mended, allow_inf_nan=False)
    except ValueError:
        return None


def _check_size(body: bytes) -> None:
    """Raise `BadRequest` for too many parts.

    The counts are right for valid JSON; the parser refuses everything else.
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
