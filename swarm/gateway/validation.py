"""Parse and check the bodies of requests; the first error is told, and names the field."""

import re
from typing import Any, TypeVar

from pydantic import ValidationError

from swarm.gateway.bounded_json import read_object
from swarm.gateway.errors import BadRequest
from swarm.gateway.field_names import Renames, in_own_words
from swarm.gateway.requests import Body
from swarm.gateway.unknown import settle

# With which pydantic tells the members of a union apart, among the names of fields.
TYPE = re.compile(r"str|int|float|bool|[\w-]+\[.*", re.DOTALL)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_PARAM_CHARS = 100  # of the name of a field, which may be any string

B = TypeVar("B", bound=Body)


def read(body: bytes, kind: type[B], strict: bool = False) -> B:
    """Parse a body.

    Raise `BadRequest`, which names the field, for anything that is not a body of this kind.

    Args:
        strict: refuse unknown fields, which are ignored otherwise.
    """
    return validated(read_object(body.removeprefix(BYTE_ORDER_MARK)), kind, strict)


def validated(
    fields: dict[str, Any], kind: type[B], strict: bool = False, renames: Renames = ()
) -> B:
    """Return the body with these fields. Other arguments and errors are those of `read`.

    Args:
        renames: how errors name the fields.
    """
    try:
        ignored = settle(fields, kind.known(), strict)
        asked = kind.model_validate(fields)
    except ValidationError as error:
        raise in_own_words(_first(error), renames) from None
    except BadRequest as error:
        raise in_own_words(error, renames) from None
    asked.ignore(*ignored)
    return asked


def _first(error: ValidationError) -> BadRequest:
    """Return the first error, as one sentence."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
    steps = [step for step in wrong["loc"] if isinstance(step, int) or not TYPE.fullmatch(step)]
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    where = where.lstrip(".")[:MAX_PARAM_CHARS]
    problem = wrong["msg"].removeprefix("Value error, ")
    return BadRequest(problem[:1].lower() + problem[1:], where or None)
