"""What of a JSON schema is left out before it is compiled, and what would take too long."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from swarm.client.json_schema import HOLDING_BY_NAME
from swarm.errors import RequestError

# Formats that llguidance follows; all others are remarks, as JSON Schema has them by default.
FORMATS = frozenset(
    {
        *("date-time", "date", "time", "duration", "email", "hostname"),
        *("ipv4", "ipv6", "uuid", "uri"),
    }
)
VALUES = frozenset({"const", "enum", "default", "examples"})  # keys of values, which are no schemas
# Compiling takes about a second for as much, and for more grows faster than it.
MAX_MULTIPLE = 10_000
MAX_PROPERTIES = 1_000


def prepare(schema: Any) -> None:
    """Leave out the formats that are not followed, everywhere in a schema.

    Raises:
        RequestError: for a schema that would take long to compile.
    """
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            _prepare(part)
            parts += _inside(part)


def _inside(part: dict[str, Any]) -> Iterator[Any]:
    """Yield what may hold schemas inside one. A property may have any name, that of a key too."""
    for key, each in part.items():
        if key in HOLDING_BY_NAME and isinstance(each, dict):
            yield from each.values()
        elif key not in VALUES:
            yield each


def _prepare(part: dict[str, Any]) -> None:
    named = part.get("format")
    if isinstance(named, str) and named not in FORMATS:
        del part["format"]
    multiple = part.get("multipleOf")
    if isinstance(multiple, int | float) and _digits(multiple) > MAX_MULTIPLE:
        allowed = f"at most {MAX_MULTIPLE}, not counting the decimal point"
        raise RequestError("multipleOf", multiple, allowed)
    properties = part.get("properties")
    if isinstance(properties, dict) and len(properties) > MAX_PROPERTIES:
        raise RequestError("properties", f"{len(properties)} names", f"at most {MAX_PROPERTIES}")


def _digits(number: float) -> int:
    """Return a number without its decimal point: 25 for 0.25."""
    exact = Decimal(str(number))
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int):  # it is not finite
        return 0
    return int(abs(exact.scaleb(-min(0, exponent))))
